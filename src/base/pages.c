/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/pages.h"

#include <sys/mman.h>

/* Kernels before 5.14 refuse; then each page has its fault. */
void pages_populate_piece(struct pages *pages)
{
    size_t left = pages->size_bytes - pages->ready_bytes;
    size_t piece = left < pages->piece_bytes ? left : pages->piece_bytes;
    madvise(pages->start + pages->ready_bytes, piece, MADV_POPULATE_WRITE);
    pages->ready_bytes += piece;
}
