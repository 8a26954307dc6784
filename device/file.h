/* The CPU as a device whose larger memory is a scratch file's (base/mapped.h): for tables that are not to count as memory. */
#ifndef DEVICE_FILE_H
#define DEVICE_FILE_H

#include "device/device.h"

/* The file is in the folder that `beside` lies in. Memory that was taken outlives the device, and may be given back through any other one
 * of the kind. */
CT_MUST_CHECK ct_code ct_device_file_create(const char *beside, ct_device **out_device, ct_status *status);
void ct_device_file_destroy(ct_device *device); /* NULL is fine */

#endif
