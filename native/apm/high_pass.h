/* A high-pass that is switched on and off with a fade over one block. */
#ifndef APMPI_APM_HIGH_PASS_H
#define APMPI_APM_HIGH_PASS_H

#include "apm/workspace.h"
#include "hpf/hpf.h"

typedef struct {
    hpf_t hpf;
    float share; /* 0..1: filtered signal in the output at the end of the last block */
} high_pass_t;

/* Clears the registers; the next block begins with the filter fully on (1) or off (0). */
void high_pass_reset(high_pass_t *high_pass, int on);
/* x: ws->hop samples, in place, not ws->block, which is overwritten. on: 0 or 1. */
void high_pass_process(high_pass_t *high_pass, workspace_t *ws, int on, float *x);

#endif
