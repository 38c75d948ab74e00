"""The index arithmetic that the kernels share (cuda/lattice.cuh), against exact fractions."""

import ctypes
from fractions import Fraction

import pytest

from infdiff.ops.gpu.nvrtc import SOURCES

PROBES = """
extern "C" void place(int pixel, int pixels, int cells, int* first, int* second, float* fraction) {
    Place p = place_on(pixel, pixels, cells);
    *first = p.first; *second = p.second; *fraction = p.fraction;
}
extern "C" float share(int pixel, int cell, int pixels, int cells) {
    return share_of(pixel, cell, pixels, cells, 1.0f / (2 * pixels));
}
extern "C" void range(int cell, int pixels, int cells, int* first, int* last) {
    pixels_of(cell, pixels, cells, first, last);
}
extern "C" void held(int cell, int pixels, int cells, int* first, int* last) {
    pixels_in(cell, pixels, cells, first, last);
}
extern "C" int halves(int pixel, int cell, int pixels, int cells) { return halves_in(pixel, cell, pixels, cells); }
extern "C" int point(const int* index, int row, int column, int height, int width) {
    return point_at(index, row, column, height, width);
}
"""
AXES = [(p, c) for p in (1, 2, 3, 5, 8, 12, 64, 257) for c in (1, 2, 3, 4, 7, 16, 128)]
# Places stay whole numbers in an int as long as pixels * cells is under 2^29.
LARGE = [(4096, 512), (65536, 8191)]


@pytest.fixture(scope="module")
def lattice(emulator):
    return emulator.build((SOURCES / "lattice.cuh").read_text() + PROBES)


def place_in_cells(pixel, pixels, cells):
    return min(max(Fraction(2 * pixel + 1, 2 * pixels) * cells - Fraction(1, 2), Fraction(0)), Fraction(cells - 1))


@pytest.mark.parametrize(("pixels", "cells"), AXES + LARGE)
def test_places_on_an_axis(lattice, pixels, cells):
    first, second, fraction = ctypes.c_int(), ctypes.c_int(), ctypes.c_float()
    for pixel in range(pixels) if pixels < 1000 else (0, 1, pixels // 2, pixels - 1):
        lattice.place(pixel, pixels, cells, *map(ctypes.byref, (first, second, fraction)))
        exact = place_in_cells(pixel, pixels, cells)
        assert first.value == int(exact)
        assert second.value == min(first.value + 1, cells - 1)
        assert fraction.value == pytest.approx(float(exact - first.value), abs=1e-6)


@pytest.mark.parametrize(("pixels", "cells"), AXES + LARGE)
def test_what_a_cell_has_of_a_pixel(lattice, pixels, cells):
    lattice.share.restype = ctypes.c_float
    for pixel in range(pixels) if pixels < 20 else (0, 1, pixels // 3, pixels // 2, pixels - 1):
        place = place_in_cells(pixel, pixels, cells)
        near = {int(place) + step for step in (-2, -1, 0, 1, 2)} | {0, cells - 1}
        for cell in near & set(range(cells)):
            exact = max(Fraction(0), 1 - abs(place - cell))
            assert lattice.share(pixel, cell, pixels, cells) == pytest.approx(float(exact), abs=1e-6)


@pytest.mark.parametrize(("pixels", "cells"), AXES)
def test_pixels_of_a_cell_are_those_that_read_it(lattice, pixels, cells):
    first, last = ctypes.c_int(), ctypes.c_int()
    for cell in range(cells):
        lattice.range(cell, pixels, cells, ctypes.byref(first), ctypes.byref(last))
        readers = [p for p in range(pixels) if abs(place_in_cells(p, pixels, cells) - cell) < 1]
        found = set(range(first.value, last.value + 1))
        assert found <= set(range(pixels))
        # None is missed; one too many at most, where clamping moved the place away.
        assert set(readers) <= found
        assert all(abs(place_in_cells(p, pixels, cells) - cell) <= 1 for p in found)


@pytest.mark.parametrize(("pixels", "cells"), AXES)
def test_pixels_that_a_cell_holds(lattice, pixels, cells):
    first, last = ctypes.c_int(), ctypes.c_int()
    for cell in range(cells) if cells < 20 else (0, 1, 63, 126, 127):
        lattice.held(cell, pixels, cells, ctypes.byref(first), ctypes.byref(last))
        held = {}
        for pixel in range(pixels):
            centre = Fraction(2 * pixel + 1, 2 * pixels) * cells
            halves = 2 if cell < centre < cell + 1 else 1 if centre in (cell, cell + 1) else 0
            assert lattice.halves(pixel, cell, pixels, cells) == halves
            if halves:
                held[pixel] = halves
        assert list(held) == list(range(first.value, last.value + 1))


@pytest.mark.parametrize(("pixels", "cells"), LARGE)
def test_pixels_that_the_last_cell_holds(lattice, pixels, cells):
    first, last = ctypes.c_int(), ctypes.c_int()
    lattice.held(cells - 1, pixels, cells, ctypes.byref(first), ctypes.byref(last))
    assert last.value == pixels - 1
    assert lattice.halves(pixels - 1, cells - 1, pixels, cells) == 2


def test_points_of_an_image(lattice):
    index = (ctypes.c_int * 6)(-1, 0, -1, 1, -1, 2)
    rows = [[lattice.point(index, row, column, 2, 3) for column in range(-1, 4)] for row in range(-1, 3)]
    assert rows == [[-1] * 5, [-1, -1, 0, -1, -1], [-1, 1, -1, 2, -1], [-1] * 5]
    assert [lattice.point(None, 1, column, 2, 3) for column in (-1, 0, 2, 3)] == [-1, 3, 5, -1]
