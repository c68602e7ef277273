#include "kernels/kernels.h"

#include <stddef.h>

const kernels_t *const kernel_variants[] = {
#ifdef __aarch64__ /* always has NEON: nothing is left to find out at run time */
    &kernels_neon,
#endif
    &kernels_scalar,
    NULL,
};
