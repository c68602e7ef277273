#include "kernels/kernels.h"

#include <stddef.h>

const kernels_t *const kernel_variants[] = {
/* 64-bit ARM always has NEON, x86-64 always SSE2: nothing is left to find out at run time */
#ifdef __aarch64__
    &kernels_neon,
#endif
#ifdef __SSE2__
    &kernels_sse2,
#endif
    &kernels_scalar,
    NULL,
};
