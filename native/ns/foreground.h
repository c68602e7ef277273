/* Foreground: sound far above noise and residual echo in a quiet room (a beep, music, a word's first sound).
 *
 * It passes, however vote and mask classify it: it masks a noise that far below, so that attenuating both
 * would improve nothing. Clatter (clatter.h) is excepted.
 */
#ifndef APMPI_NS_FOREGROUND_H
#define APMPI_NS_FOREGROUND_H

#include "ns/bands.h"
#include "ns/clatter.h"

/* Degree 0..1 to which the block is foreground. clatter: its history, updated; band_excess: presence.h. */
float foreground_process(clatter_t *clatter, const ns_block_t *block, float band_excess);

#endif
