// The lattice index: an image of point numbers. ids (B, L) ascending -> index (B, H, W), -1 where there is no point.
//
// Ascending ids make the index a gather: point l owns the pixels from its own up to the next point's. So every pixel is
// written once, without a preceding fill, and repeated or unsorted ids cannot write outside the image.
#include "lattice.cuh"

extern "C" __global__ void lattice_index(const int64* ids, int* index, int count, int pixels, int ids_stride) {
    int l = blockIdx.x * blockDim.x + threadIdx.x - 1;  // -1 owns the pixels before the first point
    if (l >= count) return;
    ids += (int64)blockIdx.y * ids_stride;
    index += (int64)blockIdx.y * pixels;
    int64 first = l < 0 ? 0 : ids[l];
    int64 end = l + 1 < count ? ids[l + 1] : pixels;
    if (first < 0 || end > pixels) return;
    for (int64 pixel = first; pixel < end; ++pixel) index[pixel] = pixel == first && l >= 0 ? l : -1;
}
