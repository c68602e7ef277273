#include "cards/ends.h"

#include <string.h>

#include "cards/time.h"

/* A larger lateness is a wrong reading of the positions. */
enum { FAR_END_SILENCE_MAX_S = 1 };

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

int far_end_capacity_samples(int rate_hz) { return 2 * FAR_END_SILENCE_MAX_S * rate_hz; }

void far_end_forget(far_end_t *far_end)
{
    far_end->place.held = 0;
    far_end->queued_samples = 0;
}

/* Drops samples at the front of the queue, or inserts silence if the number is negative. */
static void shift(far_end_t *far_end, int64_t drop_samples)
{
    const int room = far_end->capacity_samples - far_end->queued_samples,
              silence = (int)smaller(larger(-drop_samples, 0), room),
              gone = (int)smaller(larger(drop_samples, 0), far_end->queued_samples);
    const size_t sample_bytes = sizeof *far_end->queue * (size_t)far_end->channels;
    memmove(far_end->queue + silence * far_end->channels, far_end->queue + gone * far_end->channels,
            sample_bytes * (size_t)(far_end->queued_samples - gone));
    memset(far_end->queue, 0, sample_bytes * (size_t)silence);
    far_end->queued_samples += silence - gone;
}

/* Appends the samples that the card has. Sets *came to 1 if there were any and the card has not just started:
 * there are no positions yet. */
static pcm_result_t append(far_end_t *far_end, const far_end_reading_t *from, int *came)
{
    capture_t *card = from->card;
    follower_t *follower = from->follower;
    int samples = card->pcm.period_samples;
    *came = 0;
    while (samples == card->pcm.period_samples) { /* after fewer, later samples are for the next frame */
        const pcm_result_t result = capture_take(card, follower->scratch, &samples);
        if (result != PCM_GOOD || samples == 0)
            return result;
        if (card->restarted)
            far_end_forget(far_end);
        if (far_end->queued_samples + follower_out_max(follower) > far_end->capacity_samples)
            far_end_forget(far_end); /* no one takes frames */
        int16_t *end = far_end->queue + far_end->queued_samples * far_end->channels;
        far_end->queued_samples += follower_convert(follower, follower->scratch, samples, end);
        *came = !card->restarted;
    }
    return PCM_GOOD;
}

pcm_result_t far_end_fill(far_end_t *far_end, const far_end_reading_t *from, int *flows)
{
    const int64_t queued_ns = ns_of_samples(far_end->queued_samples, far_end->rate_hz),
                  head_ns = capture_unread_ns(from->card) - follower_pending_ns(from->follower) - queued_ns,
                  late_ns = from->due_ns - head_ns;
    const pcm_result_t result = append(far_end, from, flows);
    if (result != PCM_GOOD || !*flows)
        return result;
    place_check(&far_end->place, late_ns);
    if (far_end->place.held) {
        shift(far_end, follower_correction_samples(from->follower, late_ns));
        return PCM_GOOD;
    }
    const int most = FAR_END_SILENCE_MAX_S * far_end->rate_hz;
    shift(far_end, larger(samples_of_ns(late_ns, far_end->rate_hz), -most));
    follower_placed(from->follower, from->one_card);
    far_end->place.held = 1;
    return PCM_GOOD;
}

int far_end_take(far_end_t *far_end, int16_t *frame)
{
    const int samples = far_end->rate_hz / FRAMES_PER_S;
    if (far_end->queued_samples < samples) {
        far_end->place.held = 0; /* underrun of the queue */
        return 0;
    }
    memcpy(frame, far_end->queue, sizeof *frame * (size_t)(samples * far_end->channels));
    shift(far_end, samples);
    return 1;
}

/* Number of samples of the frame to leave out, or of silence to insert before it if negative. */
static int64_t drop_of(player_t *player, const play_t *play, int64_t late_ns, int samples, int standing)
{
    place_check(&player->place, late_ns);
    if (player->place.held)
        return follower_correction_samples(play->follower, late_ns);
    const int64_t drop = samples_of_ns(late_ns, play->card->pcm.rate_hz);
    follower_placed(play->follower, play->one_card);
    /* Not held yet if the start took a few samples, or if more is to be dropped than this frame. */
    player->place.held = !standing && drop <= samples;
    return drop;
}

pcm_result_t player_play(player_t *player, play_t *play)
{
    playback_t *card = play->card;
    follower_t *follower = play->follower;
    const int64_t pending_ns = follower_pending_ns(follower);
    const int buffer_samples = card->pcm.buffer_samples,
              samples = follower_convert(follower, play->frame, follower->in_rate_hz / FRAMES_PER_S,
                                         follower->scratch);
    for (int done = 0; !done;) {
        int standing;
        int64_t next_ns = 0;
        pcm_result_t result = playback_next_ns(card, &standing, &next_ns);
        if (result != PCM_GOOD)
            return result;
        if (standing) {
            next_ns = pcm_now_ns(&card->pcm);
            player->place.held = 0;
        }
        int64_t drop = drop_of(player, play, next_ns - (play->due_ns - pending_ns), samples, standing);
        if (standing) {
            /* Starting the card a whole frame late would only let it run dry before the next frame, again and
             * again, and take the time that is needed to catch up. */
            play->late = drop >= samples;
            if (play->late)
                return PCM_GOOD;
            drop = larger(smaller(drop, 0), samples - buffer_samples);
        }
        drop = drop < samples ? drop : samples;
        play->late = 0;
        play->at_ns = next_ns - ns_of_samples(drop, card->pcm.rate_hz) + pending_ns;
        /* more silence than the buffer holds cannot be written */
        const int silence = (int)smaller(larger(-drop, 0), buffer_samples), skipped = (int)larger(drop, 0);
        done = silence + samples - skipped == 0;
        if (!done)
            result = playback_write(card, silence, follower->scratch + skipped * card->pcm.channels,
                                    samples - skipped, &done);
        if (result != PCM_GOOD)
            return result;
    }
    return PCM_GOOD;
}
