#include "apm/high_pass.h"

#include <string.h>

#include "apm/block.h"

void high_pass_reset(high_pass_t *high_pass, int on)
{
    hpf_reset(&high_pass->hpf);
    high_pass->share = on ? 1.0f : 0.0f;
}

void high_pass_process(high_pass_t *high_pass, workspace_t *ws, int on, float *x)
{
    const float from = high_pass->share, to = on ? 1.0f : 0.0f;
    const int mixed = from < 1.0f || to < 1.0f;
    if (mixed)
        memcpy(ws->block, x, sizeof(float) * (size_t)ws->hop);
    hpf_process(&high_pass->hpf, x,
                ws->hop); /* also while off: the registers are valid for the next switch */
    for (int i = 0; i < ws->hop && mixed; i++)
        x[i] = ws->block[i] + fade(from, to, i, ws->hop) * (x[i] - ws->block[i]);
    high_pass->share = to;
}
