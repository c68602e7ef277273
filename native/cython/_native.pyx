# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The chain of native/apm for Python: checks shapes, releases the GIL, calls, maps errors. No arithmetic."""

from cpython.buffer cimport PyBUF_FULL_RO, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.pythread cimport (PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
                               PyThread_release_lock, PyThread_type_lock, WAIT_LOCK)
from libc.stdint cimport int16_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "stdlib.h" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "apm/apm.h" nogil:
    ctypedef struct apm_t:
        pass
    ctypedef enum apm_noise_t:
        pass
    ctypedef struct apm_config_t:
        int echo_cancellation, high_pass_filter, auto_gain_control
        apm_noise_t noise_suppression
        int learned_gain, array, low_latency
        float high_pass_hz, gain_target_dbfs, gain_max_db, headroom_db
    ctypedef struct apm_stats_t:
        float erle_db, erl_db, delay_ms, delay_confidence, drift_ppm, speech_probability, noise_floor_dbfs
        float snr_db, noise_suppression_db, agc_gain_db, array_gain_db, direction_deg
        int converged, double_talk, reference_present, divergences, microphone_clipping, microphone_too_quiet
        int references
    enum: APM_MAX_CHANNELS
    ctypedef enum apm_state_t:
        APM_STATE_GOOD, APM_STATE_FOREIGN, APM_STATE_SHAPE, APM_STATE_LAYOUT, APM_STATE_DAMAGED, APM_STATE_ODD
    apm_config_t apm_everything()
    int apm_valid(int rate_hz, int channels, int references)
    size_t apm_size(int rate_hz, int channels, int references)
    apm_t *apm_init(void *memory, int rate_hz, int channels, int references, const apm_config_t *config)
    void apm_reset(apm_t *apm)
    void apm_configure(apm_t *apm, const apm_config_t *config)
    void apm_set_positions(apm_t *apm, const float (*positions_mm)[2])
    void apm_set_delay_hint(apm_t *apm, int delay_ms)
    void apm_render(apm_t *apm, const int16_t *frames, int channels)
    void apm_capture(apm_t *apm, int16_t *frames)
    void apm_stats(const apm_t *apm, apm_stats_t *stats)
    int apm_latency_samples(const apm_t *apm)
    size_t apm_state_size(apm_t *apm)
    void apm_save(apm_t *apm, unsigned char *state)
    void apm_seal(unsigned char *state, size_t bytes)
    void apm_state_shape(const unsigned char *state, size_t bytes, int *rate_hz, int *channels)
    apm_state_t apm_restore(apm_t *apm, const unsigned char *state, size_t bytes)

cdef extern from "kernels/kernels.h" nogil:
    ctypedef struct kernels_t:
        const char *name
    const kernels_t *kernels()

MAX_CHANNELS = APM_MAX_CHANNELS
KERNELS = kernels().name.decode()
DEFAULTS = apm_everything()  # a dict by the names of apm_config_t's members


def memory_bytes(int rate_hz, int channels, int references):
    return apm_size(rate_hz, channels, references)


def state_shape(bytes state not None):
    """Return (rate in Hz, channels) of a saved state, (0, 0) of anything else."""
    cdef int rate_hz, channels
    apm_state_shape(<const unsigned char *>PyBytes_AsString(state), len(state), &rate_hz, &channels)
    return rate_hz, channels


REFUSALS = {
    APM_STATE_FOREIGN: "not a saved state",
    APM_STATE_SHAPE: "saved with another sample rate or number of channels",
    APM_STATE_LAYOUT: "saved by another version",
    APM_STATE_DAMAGED: "damaged (its checksum is wrong)",
    APM_STATE_ODD: "holds values that are never learned",
}


cdef apm_config_t pack(settings) except *:
    """Return a dict by the names of apm_config_t's members as that struct."""
    if settings.keys() != DEFAULTS.keys():
        raise TypeError(f"settings are {', '.join(settings)}, expected {', '.join(DEFAULTS)}")
    return settings


cdef bint has_samples(const Py_buffer *view) noexcept:
    """True if the elements are int16 or bytes; the formats are those of Python's module struct."""
    cdef const char *format = view.format
    if format == NULL: # bytes
        return True
    if format[0] in (c"@", c"=", c"<"): # "<", too: every board is little-endian
        format += 1
    if format[0] == 0 or format[1] != 0:
        return False
    return format[0] in (c"B", c"b", c"c") or (format[0] == c"h" and view.itemsize == sizeof(int16_t))


cdef int check_samples(const Py_buffer *view, str whose, Py_ssize_t expected_bytes) except -1:
    """Raise unless the buffer holds at least that many bytes, as int16 or bytes in one piece."""
    if not has_samples(view):
        raise TypeError(f"{whose} buffer has elements of format {view.format.decode()!r}, "
                        "expected int16 ('h') or bytes ('B')")
    if not PyBuffer_IsContiguous(<Py_buffer *>view, c"C"):
        raise RuntimeError(f"{whose} buffer is not contiguous, expected all samples in one piece")
    if view.len < expected_bytes:
        raise RuntimeError(f"{whose} buffer holds {view.len} bytes, expected {expected_bytes}")
    return 0


cdef bint is_aligned(const void *samples) noexcept nogil:
    """True if C may read it as int16: a view into bytes may begin at an odd address."""
    return <uintptr_t>samples % sizeof(int16_t) == 0


cdef class Chain:
    """One apm_t with its memory and a lock: render and capture may come from different threads."""

    cdef apm_t *apm
    cdef int16_t *aligned     # one frame of APM_MAX_CHANNELS: holds a copy of a frame at an odd address
    cdef readonly int latency_samples
    cdef readonly size_t state_bytes # of a saved state; depends only on rate, channels and references
    cdef PyThread_type_lock lock
    cdef readonly int rate_hz, channels, references

    def __cinit__(self, int rate_hz, int channels, int references, settings):
        if not apm_valid(rate_hz, channels, references):
            raise ValueError(f"rate {rate_hz} Hz with {channels} channels and {references} references")
        cdef apm_config_t config = pack(settings)
        cdef void *memory = aligned_alloc(64, apm_size(rate_hz, channels, references))
        self.aligned = <int16_t *>malloc(sizeof(int16_t) * APM_MAX_CHANNELS * (rate_hz // 100))
        self.lock = PyThread_allocate_lock()
        if memory == NULL or self.aligned == NULL or self.lock == NULL:
            free(memory)
            raise MemoryError
        self.apm = apm_init(memory, rate_hz, channels, references, &config)
        self.state_bytes = apm_state_size(self.apm)
        self.latency_samples = apm_latency_samples(self.apm)
        self.rate_hz = rate_hz
        self.channels = channels
        self.references = references

    def __dealloc__(self):
        free(self.apm)
        free(self.aligned)
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    def hold(self):
        """Block every other call until let_go()."""
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)

    def let_go(self):
        PyThread_release_lock(self.lock)

    def reset(self):
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            apm_reset(self.apm)
            PyThread_release_lock(self.lock)

    def configure(self, settings):
        cdef apm_config_t config = pack(settings)
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            apm_configure(self.apm, &config)
            PyThread_release_lock(self.lock)

    def set_positions(self, positions_mm):
        """positions_mm: x and y of each channel's microphone, no two the same."""
        cdef float places[APM_MAX_CHANNELS][2]
        if not 2 <= self.channels == len(positions_mm):
            raise ValueError(f"{len(positions_mm)} positions of {self.channels} channels")
        for channel, (x, y) in enumerate(positions_mm):
            places[channel][0] = x
            places[channel][1] = y
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            apm_set_positions(self.apm, places)
            PyThread_release_lock(self.lock)

    def set_delay_hint(self, int delay_ms):
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            apm_set_delay_hint(self.apm, delay_ms)
            PyThread_release_lock(self.lock)

    def render(self, data, int channels):
        """data: rate_hz/100 frames of 1 to APM_MAX_CHANNELS int16, as int16 or bytes in one piece."""
        if not 1 <= channels <= APM_MAX_CHANNELS:
            raise RuntimeError(f"far end has {channels} channels, expected 1 to {APM_MAX_CHANNELS}")
        cdef Py_ssize_t size = sizeof(int16_t) * channels * (self.rate_hz // 100)
        cdef Py_buffer view
        cdef const int16_t *frames
        PyObject_GetBuffer(data, &view, PyBUF_FULL_RO)
        try:
            check_samples(&view, "far-end", size)
            with nogil:
                frames = <const int16_t *>view.buf
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
                if not is_aligned(view.buf):
                    memcpy(self.aligned, view.buf, size)
                    frames = self.aligned
                apm_render(self.apm, frames, channels)
                PyThread_release_lock(self.lock)
        finally:
            PyBuffer_Release(&view)

    def capture(self, data):
        """data: rate_hz/100 frames of int16, as int16 or bytes in one writable piece; processed in place."""
        cdef Py_ssize_t size = sizeof(int16_t) * self.channels * (self.rate_hz // 100)
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_FULL_RO)
        try:
            check_samples(&view, "microphone", size)
            if view.readonly:
                raise RuntimeError("microphone buffer is read-only, expected a writable one")
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
                if is_aligned(view.buf):
                    apm_capture(self.apm, <int16_t *>view.buf)
                else:
                    memcpy(self.aligned, view.buf, size)
                    apm_capture(self.apm, self.aligned)
                    memcpy(view.buf, self.aligned, size)
                PyThread_release_lock(self.lock)
        finally:
            PyBuffer_Release(&view)

    def process(self, bytes far_end not None, int far_channels, bytes microphone not None):
        """Return the microphone's frame processed, after a far-end frame: render and capture in one call."""
        cdef Py_ssize_t size = sizeof(int16_t) * self.channels * (self.rate_hz // 100)
        cdef Py_ssize_t far_size = sizeof(int16_t) * far_channels * (self.rate_hz // 100)
        if (len(far_end), len(microphone)) != (far_size, size) or not 1 <= far_channels <= APM_MAX_CHANNELS:
            raise RuntimeError(f"far end of {len(far_end)} and microphone of {len(microphone)} bytes, expected "
                               f"10 ms: {far_size} in 1 to {APM_MAX_CHANNELS} channels and {size}")
        cdef const int16_t *far_frames = <const int16_t *>PyBytes_AsString(far_end)
        cdef bytes out = PyBytes_FromStringAndSize(NULL, size)
        cdef int16_t *frames = <int16_t *>PyBytes_AsString(out)
        memcpy(frames, PyBytes_AsString(microphone), size)
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            apm_render(self.apm, far_frames, far_channels)
            apm_capture(self.apm, frames)
            PyThread_release_lock(self.lock)
        return out

    def stats(self):
        """Return apm_stats_t as a dict by its members' names, see native/apm/apm.h."""
        cdef apm_stats_t stats
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            apm_stats(self.apm, &stats)
            PyThread_release_lock(self.lock)
        return stats

    def save(self):
        """Return the learned state as bytes. The lock is held only for a copy of some 100 KiB."""
        cdef bytes state
        cdef unsigned char *at
        cdef size_t size = self.state_bytes
        state = PyBytes_FromStringAndSize(NULL, size)
        at = <unsigned char *>PyBytes_AsString(state)
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            apm_save(self.apm, at)
            PyThread_release_lock(self.lock)
            apm_seal(at, size)
        return state

    def restore(self, bytes state not None):
        """Continue from a result of save(). If it does not fit this chain: ValueError, nothing is changed."""
        cdef apm_state_t verdict
        cdef const unsigned char *at = <const unsigned char *>PyBytes_AsString(state)
        cdef size_t size = len(state)
        with nogil:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            verdict = apm_restore(self.apm, at, size)
            PyThread_release_lock(self.lock)
        if verdict != APM_STATE_GOOD:
            raise ValueError(REFUSALS[verdict])
