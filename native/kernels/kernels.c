#include "kernels/kernels.h"

#include <stddef.h>

const kernels_t *const kernel_variants[] = {
#ifdef __aarch64__
    &kernels_neon,
#endif
#ifdef __x86_64__
    &kernels_avx2, /* kernels_here() relies on its being the first */
    &kernels_sse2,
#endif
    &kernels_scalar, NULL,
};
