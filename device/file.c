#include "device/file.h"

#include <stdlib.h>

#include "base/mapped.h"

enum { LEAST_BYTES = 4 << 10 }; /* that is worth a page of the file */

static ct_code file_memory_alloc(ct_device *device, ct_memory_kind kind, size_t bytes, void **out_memory, ct_status *status) {
    ct_device *cpu = ct_device_cpu();
    if (bytes < LEAST_BYTES) return cpu->ops->memory_alloc(cpu, kind, bytes, out_memory, status);
    return ct_mapped_take(device->self, bytes, out_memory, status);
}

static void file_memory_free(ct_device *device, ct_memory_kind kind, void *memory, size_t bytes) {
    ct_device *cpu = ct_device_cpu();
    (void)device;
    if (bytes < LEAST_BYTES)
        cpu->ops->memory_free(cpu, kind, memory, bytes);
    else
        ct_mapped_give(memory, bytes);
}

typedef struct file_device {
    ct_device device;
    ct_device_ops ops;
} file_device;

ct_code ct_device_file_create(const char *beside, ct_device **out_device, ct_status *status) {
    ct_mapped *mapped;
    file_device *made = malloc(sizeof *made);
    if (made == NULL) return ct_fail_memory(status, sizeof *made, "a device");
    if (ct_mapped_create(beside, &mapped, status) != CT_OK) {
        free(made);
        return status->code;
    }
    made->ops = *ct_device_cpu()->ops;
    made->ops.memory_alloc = file_memory_alloc;
    made->ops.memory_free = file_memory_free;
    made->device = (ct_device){.ops = &made->ops, .self = mapped};
    *out_device = &made->device;
    return CT_OK;
}

void ct_device_file_destroy(ct_device *device) {
    if (device == NULL) return;
    ct_mapped_destroy(device->self);
    free(device); /* which a file_device begins with */
}
