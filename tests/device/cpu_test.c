#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/device.h"

static const size_t HUGE_BYTES = (size_t)2 << 20;

/* Word by word in /proc/cpuinfo's flags, the kernel's view. */
static bool kernel_says(const char *flag) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[16384], padded[64];
    bool found = false;
    if (!file) return false;
    (void)snprintf(padded, sizeof padded, " %s ", flag);
    while (!found && fgets(line, sizeof line, file))
        if (strncmp(line, "flags", 5) == 0) {
            line[strcspn(line, "\n")] = ' ';
            found = strstr(line, padded) != NULL;
        }
    (void)fclose(file);
    return found;
}

static void info_agrees_with_the_kernel(void **state) {
    (void)state;
    ct_device *cpu = ct_device_cpu();
    ct_status status = CT_STATUS_INIT;
    ct_device_info info;
    assert_ptr_equal(cpu, ct_device_cpu());
    assert_string_equal(cpu->ops->kind, "cpu");
    assert_int_equal(cpu->ops->info(cpu, &info, &status), CT_OK);
    assert_string_equal(info.name, "cpu");
    assert_true(info.host_visible);
    assert_true(info.processors >= 1 && info.processors <= (uint32_t)sysconf(_SC_NPROCESSORS_CONF));
    assert_true(info.memory_bytes >= (uint64_t)64 << 20);
    print_message("instruction set %s, bf16 %d, %u processors\n", info.instruction_set, info.bf16, info.processors);
    if (!kernel_says("sse2")) {
        print_message("SKIP: /proc/cpuinfo has no flags to compare with\n");
        return;
    }
    assert_int_equal(info.bf16, kernel_says("avx512_bf16"));
    assert_int_equal(strncmp(info.instruction_set, "avx512_core", 11) == 0,
                     kernel_says("avx512f") && kernel_says("avx512bw") && kernel_says("avx512vl") && kernel_says("avx512dq"));
    assert_int_equal(strcmp(info.instruction_set, "avx512_core_amx") == 0, kernel_says("amx_bf16") && kernel_says("amx_tile"));
    if (!kernel_says("avx512f")) assert_int_equal(strcmp(info.instruction_set, "avx2") == 0, kernel_says("avx2") && kernel_says("fma"));
}

static void memory_is_zeroed_and_aligned(void **state) {
    (void)state;
    ct_device *cpu = ct_device_cpu();
    ct_status status = CT_STATUS_INIT;
    const size_t sizes[] = {0, 1, 63, 64, 65, 100003, HUGE_BYTES - 1, HUGE_BYTES, HUGE_BYTES + 1, 5 * HUGE_BYTES + 12345};
    for (int round = 0; round < 3; round++) /* memory comes back dirty unless it is zeroed */
        for (int kind = CT_MEMORY_DEVICE; kind <= CT_MEMORY_PINNED; kind++)
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                void *memory = NULL;
                assert_int_equal(cpu->ops->memory_alloc(cpu, (ct_memory_kind)kind, sizes[i], &memory, &status), CT_OK);
                assert_non_null(memory);
                assert_int_equal((uintptr_t)memory % (sizes[i] >= HUGE_BYTES ? HUGE_BYTES : 64), 0);
                const unsigned char *bytes = memory;
                for (size_t k = 0; k < sizes[i]; k++)
                    if (bytes[k] != 0) fail_msg("byte %zu of %zu is not zero", k, sizes[i]);
                memset(memory, 0xff, sizes[i]);
                cpu->ops->memory_free(cpu, (ct_memory_kind)kind, memory, sizes[i]);
            }
    cpu->ops->memory_free(cpu, CT_MEMORY_DEVICE, NULL, 100);
    cpu->ops->memory_free(cpu, CT_MEMORY_DEVICE, NULL, HUGE_BYTES);
}

/* The whole mapping goes back: the kernel knows none of its pages any more. */
static void large_memory_is_unmapped(void **state) {
    (void)state;
    ct_device *cpu = ct_device_cpu();
    ct_status status = CT_STATUS_INIT;
    const size_t bytes = 3 * HUGE_BYTES + 1;
    void *memory = NULL;
    assert_int_equal(cpu->ops->memory_alloc(cpu, CT_MEMORY_DEVICE, bytes, &memory, &status), CT_OK);
    assert_int_equal(msync(memory, bytes, MS_ASYNC), 0);
    cpu->ops->memory_free(cpu, CT_MEMORY_DEVICE, memory, bytes);
    for (size_t i = 0; i < 4; i++) assert_int_equal(msync((char *)memory + i * HUGE_BYTES, 4096, MS_ASYNC), -1);
}

static void too_much_memory_is_refused(void **state) {
    (void)state;
    ct_device *cpu = ct_device_cpu();
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX / 2, (size_t)1 << 60};
    for (size_t i = 0; i < 3; i++) {
        ct_status status = CT_STATUS_INIT;
        void *memory = NULL;
        assert_int_equal(cpu->ops->memory_alloc(cpu, CT_MEMORY_DEVICE, sizes[i], &memory, &status), CT_EXHAUSTED);
        assert_null(memory);
        assert_non_null(strstr(status.message, "out of memory"));
    }
}

static void copies_fills_and_waits(void **state) {
    (void)state;
    ct_device *cpu = ct_device_cpu();
    const ct_device_ops *ops = cpu->ops;
    ct_status status = CT_STATUS_INIT;
    ct_stream *stream = NULL;
    ct_event *event = NULL;
    unsigned char from[1000], to[1001];
    for (size_t i = 0; i < sizeof from; i++) from[i] = (unsigned char)(i * 7);
    assert_int_equal(ops->stream_create(cpu, &stream, &status), CT_OK);
    assert_int_equal(ops->event_create(cpu, &event, &status), CT_OK);
    assert_non_null(stream);
    assert_non_null(event);
    assert_int_equal(ops->fill(cpu, stream, to, 0xa5, sizeof to, &status), CT_OK);
    assert_int_equal(ops->copy(cpu, stream, to, from, 999, &status), CT_OK);
    assert_int_equal(ops->copy(cpu, stream, to, NULL, 0, &status), CT_OK);
    assert_int_equal(ops->event_record(cpu, event, stream, &status), CT_OK);
    assert_int_equal(ops->event_wait(cpu, event, stream, &status), CT_OK);
    assert_int_equal(ops->event_synchronize(cpu, event, &status), CT_OK);
    assert_int_equal(ops->stream_synchronize(cpu, stream, &status), CT_OK);
    assert_memory_equal(to, from, 999);
    assert_int_equal(to[999], 0xa5);
    assert_int_equal(to[1000], 0xa5);
    ops->event_destroy(cpu, event);
    ops->stream_destroy(cpu, stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(info_agrees_with_the_kernel), cmocka_unit_test(memory_is_zeroed_and_aligned),
        cmocka_unit_test(large_memory_is_unmapped),    cmocka_unit_test(too_much_memory_is_refused),
        cmocka_unit_test(copies_fills_and_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
