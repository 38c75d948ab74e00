// The layout of neighbour lists: written by neighbour_lists.cu, read by listed_conv.cu.
//
// by_point (B or 1, L, LIST): of each point the number of its neighbours, one word unused, then the neighbours in order
// of their offsets, as number << TAP_BITS | offset. An odd number of them is followed by the point itself at offset
// WINDOW, whose tap is zero.
// by_offset (B or 1, stretches, WINDOW, PAIRS): of each stretch of consecutive points and each offset, the number of its
// points that have a neighbour there, then these in ascending order, as number << STRETCH_BITS | place in the stretch.
// Numbers are places in the image's row of ids.
#pragma once

constexpr int WINDOW = WINDOW_HEIGHT * WINDOW_WIDTH;
constexpr int TAP_BITS = 8;
constexpr int STRETCH_BITS = 7;
constexpr int STRETCH = 1 << STRETCH_BITS;
// Even, so that two neighbours are read at once.
constexpr int LIST = 2 + WINDOW + WINDOW % 2;
constexpr int PAIRS = 1 + STRETCH;
static_assert(WINDOW < 1 << TAP_BITS, "offsets, and the one whose tap is zero, fit their bits");
