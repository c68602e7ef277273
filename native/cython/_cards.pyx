# cython: language_level=3, boundscheck=False, wraparound=False
"""The devices of native/cards for Python: allocates, releases the GIL, calls, maps faults. No arithmetic."""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.errno cimport EBADFD, ENODEV
from libc.stdint cimport int16_t, int64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc

from apmpi.errors import DeviceLost

cdef extern from "stdlib.h" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "alsa/asoundlib.h" nogil:
    ctypedef struct snd_pcm_t:
        pass
    int snd_pcm_drop(snd_pcm_t *pcm)
    int snd_pcm_close(snd_pcm_t *pcm)
    const char *snd_strerror(int code)

cdef extern from "cards/formats.h" nogil:
    ctypedef enum format_t:
        FORMAT_S16, FORMAT_S32, FORMAT_S24_3, FORMAT_FLOAT
    int format_bytes(format_t format)
    void format_to_int16(format_t format, const unsigned char *raw, int count, int16_t *out)
    void format_from_int16(format_t format, const int16_t *samples, int count, unsigned char *raw)

cdef extern from "cards/time.h" nogil:
    enum: FRAMES_PER_S

cdef extern from "cards/clocks.h" nogil:
    enum: DRIFT_PPM_MAX
    ctypedef struct drift_t:
        double integral
    ctypedef struct settling_t:
        pass
    void drift_init(drift_t *drift, double frame_s, double ppm)
    void drift_placed(drift_t *drift)
    double drift_ratio(drift_t *drift, double late_s)
    void settling_placed(settling_t *settling)
    int settling_late_samples(settling_t *settling, double late_samples)

cdef extern from "cards/converter.h" nogil:
    ctypedef struct converter_t:
        pass
    size_t converter_table_floats(double ratio)
    void converter_make_table(double ratio, float *table)
    size_t converter_size(int channels, int samples_max, double ratio)
    converter_t *converter_init(void *memory, int channels, int samples_max, double ratio, const float *table)

cdef extern from "cards/follower.h" nogil:
    ctypedef struct follower_t:
        int channels, in_rate_hz, out_rate_hz
        converter_t *converter
        int16_t *scratch
        int converts
        drift_t drift
    ctypedef struct place_t:
        int held, slips
    void follower_begin(follower_t *follower, double ppm)
    int follower_scratch_samples(const follower_t *follower)

cdef extern from "cards/pcm.h" nogil:
    enum: STALL_MS
    ctypedef enum pcm_result_t:
        PCM_GOOD, PCM_STALLED, PCM_ONLY_XRUNS, PCM_FAILED
    ctypedef struct pcm_t:
        snd_pcm_t *handle
        format_t format
        int rate_hz, channels, frame_samples, period_samples, buffer_samples
        double speed
        int xruns, xruns_in_a_row, error
        unsigned char *raw
    ctypedef struct capture_t:
        pcm_t pcm
        int restarted
        int64_t captured_ns
    ctypedef struct playback_t:
        pcm_t pcm
        int moving
    int pcm_raw_samples(const pcm_t *pcm)
    void capture_begin(capture_t *capture)
    void capture_rest(capture_t *capture)
    pcm_result_t capture_read(capture_t *capture, int16_t *frame)
    void playback_begin(playback_t *playback)
    void playback_rest(playback_t *playback)

cdef extern from "cards/ends.h" nogil:
    ctypedef struct far_end_t:
        place_t place
        int channels, rate_hz, capacity_samples
        int16_t *queue
    ctypedef struct player_t:
        place_t place
    ctypedef struct far_end_reading_t:
        capture_t *card
        follower_t *follower
        int64_t due_ns
        int one_card
    ctypedef struct play_t:
        playback_t *card
        follower_t *follower
        const int16_t *frame
        int64_t due_ns
        int one_card, late
        int64_t at_ns
    int far_end_capacity_samples(int rate_hz)
    void far_end_forget(far_end_t *far_end)
    pcm_result_t far_end_fill(far_end_t *far_end, const far_end_reading_t *reading, int *flows)
    int far_end_take(far_end_t *far_end, int16_t *frame)
    pcm_result_t player_play(player_t *player, play_t *play)

cdef extern from "cards/latency.h" nogil:
    enum: LATENCY_PARTS
    ctypedef struct latency_log_t:
        int capacity_frames
        int64_t frames
        float *ring_ms
    ctypedef struct spread_t:
        float median, p99, max
    ctypedef struct level_t:
        double rms
        int peak
    void latency_add(latency_log_t *log, const float *parts_ms)
    void latency_copy(const latency_log_t *log, int part, int64_t begin_frame, int64_t end_frame,
                      float *out_ms)
    spread_t spread_of(float *values, int count)
    level_t level_of(const int16_t *samples, int count)

cdef extern from "cards/downmix.h" nogil:
    enum: DOWNMIX_CHANNELS_MAX
    ctypedef struct downmix_t:
        int channels, step, frames
        double *last
        double *sum
        int *clipped
        float *weights
        float *new_weights
    void downmix_forget(downmix_t *downmix)
    void downmix_note_clipping(downmix_t *downmix, const int16_t *frame, int samples)
    void downmix_measure(downmix_t *downmix, const int16_t *frame, int samples)
    void downmix_mix(downmix_t *downmix, const int16_t *frame, int samples, int16_t *mono)

cdef FORMATS = {"S16_LE": FORMAT_S16, "S32_LE": FORMAT_S32, "S24_3LE": FORMAT_S24_3, "FLOAT_LE": FORMAT_FLOAT}


def to_int16(bytes samples not None, str sample_format not None):
    """Return samples of a format as int16: rounded, saturated; a NaN becomes 0."""
    cdef format_t number = FORMATS[sample_format]
    cdef int count = len(samples) // format_bytes(number)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, count * sizeof(int16_t))
    cdef const unsigned char *raw = <const unsigned char *>PyBytes_AsString(samples)
    format_to_int16(number, raw, count, <int16_t *>PyBytes_AsString(out))
    return out


def from_int16(bytes samples not None, str sample_format not None):
    """Return int16 as samples of a format, without loss."""
    cdef format_t number = FORMATS[sample_format]
    cdef int count = len(samples) // sizeof(int16_t)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, count * format_bytes(number))
    cdef unsigned char *raw = <unsigned char *>PyBytes_AsString(out)
    format_from_int16(number, <const int16_t *>PyBytes_AsString(samples), count, raw)
    return out


cdef class Drift:
    """drift_t of native/cards/clocks.h.

    ppm       card clock over microphone clock
    PPM_MAX   largest magnitude of it
    """

    PPM_MAX = float(DRIFT_PPM_MAX)
    cdef drift_t drift

    def __cinit__(self, double frame_s, double ppm=0.0):
        drift_init(&self.drift, frame_s, ppm)

    @property
    def ppm(self):
        return self.drift.integral * 1e6

    def placed(self):
        drift_placed(&self.drift)

    def ratio(self, double late_s):
        """Return the card's samples per sample of the microphone for the next frame."""
        return drift_ratio(&self.drift, late_s)


cdef class Settling:
    """settling_t of native/cards/clocks.h."""

    cdef settling_t settling

    def __cinit__(self):
        settling_placed(&self.settling)

    def placed(self):
        settling_placed(&self.settling)

    def late_samples(self, double late_samples):
        """Take one reading of the lateness; return by how many samples to correct now."""
        return settling_late_samples(&self.settling, late_samples)


cdef class Pcm:
    """An open device, the common part of Capture and Playback. Closed, it raises DeviceLost.

    key             of the endpoint in the configuration: "microphone", "speaker", ...
    device          ALSA's name
    rate_hz, channels
    frame_samples   samples per channel in 10 ms
    xruns           number of underruns or overruns
    card_number     the kernel's; -1 for a plugin that is no card
    """

    cdef pcm_t *pcm  # of the subclass
    cdef readonly str key, device
    cdef readonly int card_number

    def __cinit__(self, *_, **__):
        if type(self) is Pcm:
            raise TypeError("a Pcm has no direction, expected Capture or Playback")

    def __init__(self, str key, str device, uintptr_t handle, offer, double speed):
        """Take over an open handle with the parameters of its Offer."""
        self.key = key
        self.device = device
        self.card_number = offer.card_number
        self.pcm.handle = <snd_pcm_t *>handle
        self.pcm.format = FORMATS[offer.sample_format]
        self.pcm.rate_hz = offer.rate_hz
        self.pcm.channels = offer.channels
        self.pcm.frame_samples = offer.rate_hz // FRAMES_PER_S
        self.pcm.period_samples = offer.period_samples
        self.pcm.buffer_samples = offer.buffer_samples
        self.pcm.speed = speed
        cdef size_t sample_bytes = format_bytes(self.pcm.format) * self.pcm.channels
        self.pcm.raw = <unsigned char *>calloc(pcm_raw_samples(self.pcm), sample_bytes)
        if self.pcm.raw == NULL:
            raise MemoryError
        self.begin()

    cdef void begin(self) noexcept:
        """Initialise the state of one direction."""

    def __dealloc__(self):
        if self.pcm != NULL:
            self.close()
            free(self.pcm.raw)

    @property
    def rate_hz(self):
        return self.pcm.rate_hz

    @property
    def channels(self):
        return self.pcm.channels

    @property
    def frame_samples(self):
        return self.pcm.frame_samples

    @property
    def xruns(self):
        return self.pcm.xruns

    def close(self):
        """Close the device and discard its queue."""
        cdef snd_pcm_t *handle = self.pcm.handle
        self.pcm.handle = NULL
        if handle != NULL:
            with nogil:
                snd_pcm_drop(handle)
                snd_pcm_close(handle)

    cdef int check_open(self) except -1:
        if self.pcm.handle == NULL:
            raise DeviceLost(f"{self.key}.device: '{self.device}' is closed")
        return 0

    cdef int check(self, pcm_result_t result) except -1:
        """Raise DeviceLost for a fault."""
        if result == PCM_GOOD:
            return 0
        if result == PCM_STALLED:
            problem = f"has stopped: {self.still} for {STALL_MS} ms"
        elif result == PCM_ONLY_XRUNS:
            problem = f"has gone ({self.pcm.xruns_in_a_row} xruns in a row without sound)"
        elif self.pcm.error in (-ENODEV, -EBADFD):
            problem = "has gone (unplugged?)"
        else:
            problem = f"failed ({snd_strerror(self.pcm.error).decode()})"
        raise DeviceLost(f"{self.key}.device: '{self.device}' {problem}")


cdef class Capture(Pcm):
    """A recording device, capture_t of native/cards/pcm.h.

    restarted     True after the first samples that follow a start or an overrun: samples before were lost
    captured_ns   time at which the first sample of the last frame was at the converter
    """

    still = "no sound"
    cdef capture_t capture

    def __cinit__(self, *_, **__):
        self.pcm = &self.capture.pcm

    cdef void begin(self) noexcept:
        capture_begin(&self.capture)

    @property
    def restarted(self):
        return self.capture.restarted != 0

    @property
    def captured_ns(self):
        return self.capture.captured_ns

    def rest(self):
        """Stop the card and discard its queue; the next transfer starts it again, without an xrun."""
        self.check_open()
        capture_rest(&self.capture)

    def read(self):
        """Return the next frame; waits at most STALL_MS. Raises DeviceLost."""
        self.check_open()
        cdef pcm_result_t result
        cdef Py_ssize_t size = sizeof(int16_t) * self.pcm.channels * self.pcm.frame_samples
        cdef bytes frame = PyBytes_FromStringAndSize(NULL, size)
        cdef int16_t *samples = <int16_t *>PyBytes_AsString(frame)
        with nogil:
            result = capture_read(&self.capture, samples)
        self.check(result)
        return frame


cdef class Playback(Pcm):
    """A playing device, playback_t of native/cards/pcm.h.

    moving   True once the card's position has advanced
    """

    still = "played nothing"
    cdef playback_t playback

    def __cinit__(self, *_, **__):
        self.pcm = &self.playback.pcm

    cdef void begin(self) noexcept:
        playback_begin(&self.playback)

    @property
    def moving(self):
        return self.playback.moving != 0

    def rest(self):
        """Stop the card and discard its queue; the next transfer starts it again, without an xrun."""
        self.check_open()
        playback_rest(&self.playback)


cdef class Table:
    """A converter's table."""

    cdef float *table

    def __cinit__(self, double ratio):
        self.table = <float *>malloc(converter_table_floats(ratio) * sizeof(float))
        if self.table == NULL:
            raise MemoryError
        converter_make_table(ratio, self.table)

    def __dealloc__(self):
        free(self.table)


cdef dict TABLES = {}  # by the ratio: a device that a reload exchanges costs none


cdef class Follower:
    """follower_t of native/cards/follower.h.

    channels, in_rate_hz, out_rate_hz   of the samples that it is given and returns
    ppm   output samples per input sample above the rates' nominal ratio; None on the microphone's clock
    """

    cdef follower_t follower
    cdef object pace
    cdef Table table

    def __cinit__(self, pace, int channels, int in_rate_hz, int out_rate_hz, double ppm=0.0):
        """`pace` is the microphone's slot, None if the card is known to be the microphone's; `ppm` is the
        clock difference found by an earlier run."""
        cdef double ratio = <double>out_rate_hz / in_rate_hz
        cdef int samples_max = in_rate_hz // FRAMES_PER_S
        cdef void *memory = NULL
        self.pace = pace
        self.follower.channels, self.follower.in_rate_hz = channels, in_rate_hz
        self.follower.out_rate_hz = out_rate_hz
        if pace is not None or in_rate_hz != out_rate_hz:
            memory = aligned_alloc(64, converter_size(channels, samples_max, ratio))
            if memory == NULL:
                raise MemoryError
            if ratio not in TABLES:
                TABLES[ratio] = Table(ratio)
            self.table = TABLES[ratio]
            self.follower.converter = converter_init(memory, channels, samples_max, ratio, self.table.table)
        self.follower.scratch = <int16_t *>calloc(follower_scratch_samples(&self.follower) * channels,
                                                  sizeof(int16_t))
        if self.follower.scratch == NULL:
            raise MemoryError
        follower_begin(&self.follower, ppm)

    def __dealloc__(self):
        free(self.follower.converter)
        free(self.follower.scratch)

    @property
    def channels(self):
        return self.follower.channels

    @property
    def out_rate_hz(self):
        return self.follower.out_rate_hz

    @property
    def ppm(self):
        return self.follower.drift.integral * 1e6 if self.follower.converts else None

    cdef int one_card(self, Pcm card) except -1:
        """Return 1 if the card is known to be the microphone's."""
        cdef Pcm microphone = None if self.pace is None else self.pace.card
        return microphone is not None and microphone.card_number == card.card_number >= 0

    cdef int check_card(self, Pcm card, int rate_hz, int channels) except -1:
        """Raise unless card and follower have these channels, and the card this rate."""
        card.check_open()
        if card.pcm.rate_hz != rate_hz or not card.pcm.channels == self.follower.channels == channels:
            raise RuntimeError(f"{card.key}: {card.pcm.rate_hz} Hz and {card.pcm.channels} channels, "
                               f"expected {rate_hz} Hz and {channels}")
        return 0


cdef class Place:
    """State of one card's sound in time, place_t of native/cards/follower.h.

    slips   number of times that samples were dropped or silence was inserted without an xrun
    """

    cdef place_t *place  # of the subclass

    def __cinit__(self, *_, **__):
        if type(self) is Place:
            raise TypeError("a Place belongs to a card, expected FarQueue or PlaybackPlace")

    @property
    def slips(self):
        return self.place.slips

    def lose(self):
        """Place the next sound anew."""
        self.place.held = 0


cdef class FarQueue(Place):
    """A far end's sound, far_end_t of native/cards/ends.h."""

    cdef far_end_t far_end

    def __cinit__(self, int channels, int rate_hz):
        self.place = &self.far_end.place
        self.far_end.channels, self.far_end.rate_hz = channels, rate_hz
        self.far_end.capacity_samples = far_end_capacity_samples(rate_hz)
        self.far_end.queue = <int16_t *>calloc(self.far_end.capacity_samples * channels, sizeof(int16_t))
        if self.far_end.queue == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.far_end.queue)

    def forget(self):
        """Discard the queue, and place the next sound anew."""
        far_end_forget(&self.far_end)

    def fill(self, Capture card not None, Follower follower not None, int64_t due_ns):
        """Read all that `card` has; the queue then begins with the sample captured at `due_ns`.

        Return True if samples came. Raises DeviceLost."""
        cdef pcm_result_t result
        cdef far_end_reading_t reading
        cdef int flows = 0
        follower.check_card(card, follower.follower.in_rate_hz, self.far_end.channels)
        if follower.follower.out_rate_hz != self.far_end.rate_hz:
            raise RuntimeError(f"{card.key}: converted to {follower.follower.out_rate_hz} Hz, "
                               f"expected {self.far_end.rate_hz} Hz")
        reading.card, reading.follower = &card.capture, &follower.follower
        reading.due_ns = due_ns
        reading.one_card = follower.one_card(card)
        with nogil:
            result = far_end_fill(&self.far_end, &reading, &flows)
        card.check(result)
        return flows != 0

    def take(self):
        """Return the next frame, None if there is none."""
        cdef int samples = self.far_end.channels * (self.far_end.rate_hz // FRAMES_PER_S)
        cdef bytes frame = PyBytes_FromStringAndSize(NULL, sizeof(int16_t) * samples)
        return frame if far_end_take(&self.far_end, <int16_t *>PyBytes_AsString(frame)) else None


cdef class PlaybackPlace(Place):
    """The place of what a card plays, player_t of native/cards/ends.h."""

    cdef player_t player

    def __cinit__(self):
        self.place = &self.player.place

    def play(self, Playback card not None, Follower follower not None, bytes frame not None, int64_t due_ns):
        """Queue a frame; return when its first sample will leave the converter, None if it is too late.

        Raises DeviceLost."""
        cdef pcm_result_t result
        cdef play_t play
        cdef int samples = follower.follower.channels * (follower.follower.in_rate_hz // FRAMES_PER_S)
        follower.check_card(card, follower.follower.out_rate_hz, follower.follower.channels)
        if len(frame) != sizeof(int16_t) * samples:
            raise RuntimeError(f"{card.key}: a frame of {len(frame)} bytes, "
                               f"expected {sizeof(int16_t) * samples}")
        play.card, play.follower = &card.playback, &follower.follower
        play.frame = <const int16_t *>PyBytes_AsString(frame)
        play.due_ns = due_ns
        play.one_card = follower.one_card(card)
        with nogil:
            result = player_play(&self.player, &play)
        card.check(result)
        return None if play.late else play.at_ns


def level(bytes samples not None):
    """Return (RMS, largest magnitude) of int16 samples, full scale 32768; both 0 without samples."""
    cdef int count = len(samples) // sizeof(int16_t)
    cdef level_t found = level_of(<const int16_t *>PyBytes_AsString(samples), count)
    return found.rms, found.peak


cdef class LatencyRing:
    """latency_log_t of native/cards/latency.h. One thread adds, another one reads.

    frames   number of frames added since the start
    """

    cdef latency_log_t log

    def __cinit__(self, int capacity_frames, *_, **__):
        self.log.capacity_frames = capacity_frames
        self.log.ring_ms = <float *>calloc(2 * LATENCY_PARTS * capacity_frames, sizeof(float))
        if self.log.ring_ms == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.log.ring_ms)

    @property
    def frames(self):
        return self.log.frames

    @frames.setter
    def frames(self, int64_t frames):
        """Skip frames: those between have the values of earlier ones."""
        if frames < self.log.frames:
            raise ValueError(f"{frames} frames given, expected {self.log.frames} or more")
        self.log.frames = frames

    def add(self, float capture_wait_ms, float processing_ms, float playback_queue_ms):
        """Add a frame's latency by its parts."""
        cdef float[3] parts_ms = [capture_wait_ms, processing_ms, playback_queue_ms]
        latency_add(&self.log, parts_ms)

    def spreads(self, int64_t since_frame):
        """Return the number of frames from `since_frame` on, the capacity at most, and of each part and of
        their sum (median, 99th percentile, maximum) in ms; None without frames."""
        cdef int64_t end = self.log.frames, begin = max(since_frame, end - self.log.capacity_frames)
        cdef int count = <int>(end - begin), part
        cdef spread_t[LATENCY_PARTS + 1] spreads
        if count <= 0:
            return None
        cdef float *values = <float *>malloc(count * sizeof(float))
        if values == NULL:
            raise MemoryError
        with nogil:
            for part in range(LATENCY_PARTS + 1):
                latency_copy(&self.log, part, begin, end, values)
                spreads[part] = spread_of(values, count)
        free(values)
        return count, [(spreads[part].median, spreads[part].p99, spreads[part].max)
                       for part in range(LATENCY_PARTS + 1)]


cdef class Mixer:
    """downmix_t of native/cards/downmix.h.

    frames    number of frames measured since forget()
    last      covariances of the channels in the last frame, in rows
    sum       the same, summed since forget()
    clipped   of each channel: whether full scale was reached since forget()
    """

    cdef downmix_t downmix

    def __cinit__(self, int step, weights):
        if not 1 <= len(weights) <= DOWNMIX_CHANNELS_MAX:
            raise ValueError(f"{len(weights)} channels given, expected 1 to {DOWNMIX_CHANNELS_MAX}")
        self.downmix.channels, self.downmix.step = len(weights), step
        self.fade_to(weights)
        for channel in range(self.downmix.channels):
            self.downmix.weights[channel] = self.downmix.new_weights[channel]
        downmix_forget(&self.downmix)

    cdef list rows(self, const double *covariances):
        cdef int count = self.downmix.channels, row, column
        return [[covariances[row * count + column] for column in range(count)] for row in range(count)]

    @property
    def frames(self):
        return self.downmix.frames

    @property
    def last(self):
        return self.rows(self.downmix.last)

    @property
    def sum(self):
        return self.rows(self.downmix.sum)

    @property
    def clipped(self):
        cdef int channel
        return [self.downmix.clipped[channel] != 0 for channel in range(self.downmix.channels)]

    def forget(self):
        downmix_forget(&self.downmix)

    def fade_to(self, weights):
        """Set the weights that the next frame ends with, one for each channel."""
        for channel in range(self.downmix.channels):
            self.downmix.new_weights[channel] = weights[channel]

    def measure(self, bytes frame not None, bytes unprocessed):
        """Take a frame; `unprocessed` is the frame before processing, or None."""
        cdef int samples = self.samples(frame)
        cdef const int16_t *sound = <const int16_t *>PyBytes_AsString(frame)
        if unprocessed is not None:
            samples = self.samples(unprocessed)
            downmix_note_clipping(&self.downmix, <const int16_t *>PyBytes_AsString(unprocessed), samples)
        downmix_measure(&self.downmix, sound, self.samples(frame))

    def mix(self, bytes frame not None):
        """Return the mono frame."""
        cdef int samples = self.samples(frame)
        cdef bytes mono = PyBytes_FromStringAndSize(NULL, samples * sizeof(int16_t))
        downmix_mix(&self.downmix, <const int16_t *>PyBytes_AsString(frame), samples,
                    <int16_t *>PyBytes_AsString(mono))
        return mono

    cdef int samples(self, bytes frame) except -1:
        """Return the samples per channel; two at least are compared."""
        cdef Py_ssize_t samples = len(frame) // (sizeof(int16_t) * self.downmix.channels)
        if samples < 2 * self.downmix.step:
            raise ValueError(f"{samples} samples given, expected {2 * self.downmix.step} or more")
        return <int>samples
