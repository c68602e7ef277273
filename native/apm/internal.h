/* The chain's state, for the files of apm/ and for the training's probe (training/dump.c); everything else
 * uses apm.h. apm_capture() in apm.c alone writes to several members within a block; figures.c reads, state.c
 * restores.
 */
#ifndef APMPI_APM_INTERNAL_H
#define APMPI_APM_INTERNAL_H

#include "agc/agc.h"
#include "apm/apm.h"
#include "apm/channel.h"
#include "apm/far.h"
#include "apm/figures.h"
#include "apm/workspace.h"
#include "array/array.h"
#include "array/direction.h"
#include "limiter/limiter.h"
#include "ns/level.h"

struct apm {
    int channels;
    apm_config_t config;
    workspace_t workspace;
    far_t far;
    jump_t jump; /* of channel 0's echo: all microphones receive the same loudspeaker */
    channel_t channel[APM_MAX_CHANNELS];
    array_t array;         /* of two channels and more; learns while apm_is_beam() */
    direction_t direction; /* the same */
    figures_t figures;
    ns_level_t level;
    agc_t agc;
    limiter_t limiter;
    /* of the last block: far end above FAR_PRESENT_POWER at the echo's delay, 0 or 1 */
    int far_active;
    /* since it was, and since a microphone's sample was at full scale; both at most BLOCKS_PER_S */
    int echo_age_blocks, clip_age_blocks;
};

/* View of the chain for a channel; valid as long as `apm` is not changed. */
channel_input_t apm_channel_input(const apm_t *apm);
/* 1 if the microphones are one beam, which is suppressed as channel 0. */
int apm_is_beam(const apm_t *apm);
/* Largest attenuation of noise in dB that is configured, or chosen by the SNR; 0: none. */
float apm_attenuation_db(const apm_t *apm);

#endif
