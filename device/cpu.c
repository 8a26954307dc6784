/* The CPU as a device. All work is done in the call, so streams and events are empty: each is one static object that says which kind it
 * is, and waiting returns at once. Graphs are left out. Large memory is mapped at 2 MiB and asks for huge pages, which make random
 * look-ups more than twice as fast. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/pool.h"
#include "device/device.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const size_t HUGE_BYTES = (size_t)2 << 20;
static const size_t MAPPED_BYTES = (size_t)128 << 10,
                    PAGE_BYTES = 64 << 10; /* mapped, so that the kernel has it back; whole pages everywhere */

struct ct_stream {
    char unused;
};
struct ct_event {
    char unused;
};

#if defined(__x86_64__)
/* Tiles of AMX with bf16 products; the compiler's cpu_supports does not know of it in all versions we build with. */
static bool has_amx_bf16(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if (!(d & (1u << 22)) || !(d & (1u << 24))) return false; /* AMX-BF16, AMX-TILE */
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return false;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & (3u << 17)) == (3u << 17); /* the system saves tiles */
}
#endif

/* The best set of instructions, by oneDNN's names: equal names promise equal bits. */
static const char *instruction_set(bool *out_bf16) {
    *out_bf16 = false;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx512_core = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512_core && __builtin_cpu_supports("avx512bf16")) {
        *out_bf16 = true;
        return has_amx_bf16() ? "avx512_core_amx" : "avx512_core_bf16";
    }
    if (avx512_core && __builtin_cpu_supports("avx512vnni")) return "avx512_core_vnni";
    if (avx512_core) return "avx512_core";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
    if (__builtin_cpu_supports("avx")) return "avx";
    if (__builtin_cpu_supports("sse4.1")) return "sse41";
    return "x86_64";
#else
    return "generic";
#endif
}

static ct_code cpu_info(ct_device *device, ct_device_info *out_info, ct_status *status) {
    (void)device;
    (void)status;
    ct_device_info info;
    memset(&info, 0, sizeof info);
    memcpy(info.name, "cpu", sizeof "cpu");
    const char *set = instruction_set(&info.bf16);
    memcpy(info.instruction_set, set, strlen(set) + 1);
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    info.memory_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    info.processors = (uint32_t)ct_pool_default_threads();
    info.host_visible = true;
    *out_info = info;
    return CT_OK;
}

/* Maps whole pages at a multiple of 2 MiB: more is mapped and both ends are given back. NULL on failure. Huge pages are asked for where
 * they are full, so what is not a multiple of 2 MiB costs no more than it has. */
static void *map_huge(size_t bytes) {
    char *memory = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    const size_t before = (HUGE_BYTES - (uintptr_t)memory % HUGE_BYTES) % HUGE_BYTES, after = HUGE_BYTES - before;
    if (before) (void)munmap(memory, before);
    if (after) (void)munmap(memory + before + bytes, after);
    (void)madvise(memory + before, bytes / HUGE_BYTES * HUGE_BYTES,
                  MADV_HUGEPAGE); /* a wish; without it the memory is as good, only slower */
    return memory + before;
}

static size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

static ct_code cpu_memory_alloc(ct_device *device, ct_memory_kind kind, size_t bytes, void **out_memory, ct_status *status) {
    (void)device;
    (void)kind; /* all memory is the host's */
    void *memory = NULL;
    if (bytes > SIZE_MAX / 2) return ct_fail_memory(status, bytes, "device memory");
    if (bytes >= HUGE_BYTES) {
        memory = map_huge(round_up(bytes, PAGE_BYTES)); /* zeroed by the kernel */
    } else if (bytes >= MAPPED_BYTES) {
        memory = mmap(NULL, round_up(bytes, PAGE_BYTES), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* zeroed */
        if (memory == MAP_FAILED) memory = NULL;
    } else {
        const size_t rounded = round_up(bytes ? bytes : 1, 64);
        memory = aligned_alloc(64, rounded);
        if (memory) memset(memory, 0, rounded);
    }
    if (!memory) return ct_fail_memory(status, bytes, "device memory");
    *out_memory = memory;
    return CT_OK;
}

static void cpu_memory_free(ct_device *device, ct_memory_kind kind, void *memory, size_t bytes) {
    (void)device;
    (void)kind;
    if (!memory) return;
    if (bytes >= MAPPED_BYTES)
        (void)munmap(memory, round_up(bytes, PAGE_BYTES));
    else
        free(memory);
}

static ct_code cpu_stream_create(ct_device *device, ct_stream **out_stream, ct_status *status) {
    static ct_stream stream; /* never written */
    (void)device;
    (void)status;
    *out_stream = &stream;
    return CT_OK;
}

static void cpu_stream_destroy(ct_device *device, ct_stream *stream) {
    (void)device;
    (void)stream;
}

static ct_code cpu_stream_synchronize(ct_device *device, ct_stream *stream, ct_status *status) {
    (void)device;
    (void)stream;
    (void)status;
    return CT_OK;
}

static ct_code cpu_copy(ct_device *device, ct_stream *stream, void *to, const void *from, size_t bytes, ct_status *status) {
    (void)device;
    (void)stream;
    (void)status;
    if (bytes) memcpy(to, from, bytes);
    return CT_OK;
}

static ct_code cpu_fill(ct_device *device, ct_stream *stream, void *to, uint8_t byte, size_t bytes, ct_status *status) {
    (void)device;
    (void)stream;
    (void)status;
    if (bytes) memset(to, byte, bytes);
    return CT_OK;
}

static ct_code cpu_event_create(ct_device *device, ct_event **out_event, ct_status *status) {
    static ct_event event; /* never written */
    (void)device;
    (void)status;
    *out_event = &event;
    return CT_OK;
}

static void cpu_event_destroy(ct_device *device, ct_event *event) {
    (void)device;
    (void)event;
}

static ct_code cpu_event_of_stream(ct_device *device, ct_event *event, ct_stream *stream, ct_status *status) {
    (void)device;
    (void)event;
    (void)stream;
    (void)status;
    return CT_OK;
}

static ct_code cpu_event_synchronize(ct_device *device, ct_event *event, ct_status *status) {
    (void)device;
    (void)event;
    (void)status;
    return CT_OK;
}

ct_device *ct_device_cpu(void) {
    static const ct_device_ops ops = {
        .kind = "cpu",
        .info = cpu_info,
        .memory_alloc = cpu_memory_alloc,
        .memory_free = cpu_memory_free,
        .stream_create = cpu_stream_create,
        .stream_destroy = cpu_stream_destroy,
        .stream_synchronize = cpu_stream_synchronize,
        .copy = cpu_copy,
        .fill = cpu_fill,
        .event_create = cpu_event_create,
        .event_destroy = cpu_event_destroy,
        .event_record = cpu_event_of_stream,
        .event_wait = cpu_event_of_stream,
        .event_synchronize = cpu_event_synchronize,
    };
    static ct_device device = {.ops = &ops}; /* never written */
    return &device;
}
