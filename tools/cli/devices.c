/* clicktower devices: what this machine has, and what a run here would use. Everything is asked of the system or of the libraries that are
 * loaded; nothing is measured. */
#include <gnu/libc-version.h>
#include <link.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/pool.h"
#include "device/device.h"
#include "tools/cli/cli.h"
#include "tower/tower.h"

enum { FILE_BYTES = 4 << 20, PATH_BYTES = 4096 };

/* The content of a small file of the kernel's, without the final newline; NULL where it is not there. malloc'd. */
static char *read_text(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) return NULL;
    char *text = malloc(FILE_BYTES);
    const size_t bytes = text ? fread(text, 1, FILE_BYTES - 1, file) : 0;
    (void)fclose(file);
    if (!text) return NULL;
    text[bytes] = '\0';
    if (bytes && text[bytes - 1] == '\n') text[bytes - 1] = '\0';
    return text;
}

/* What stands behind `name` and a colon in a text of lines; NULL where it is not there. malloc'd. */
static char *line_of(const char *text, const char *name) {
    const size_t bytes = strlen(name);
    for (const char *line = text; line && *line != '\0'; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, name, bytes) != 0) continue;
        const char *at = line + bytes + strspn(line + bytes, " \t");
        if (*at != ':') continue;
        at += 1 + strspn(at + 1, " \t");
        return strndup(at, strcspn(at, "\n"));
    }
    return NULL;
}

static void set_text(json_t *object, const char *key, const char *value) {
    if (value) (void)json_object_set_new(object, key, json_string(value));
}

static void set_count(json_t *object, const char *key, int64_t value) { (void)json_object_set_new(object, key, json_integer(value)); }

/* --- processor --- */

/* Those that make a difference here, in the kernel's words. */
static json_t *instruction_sets(const char *flags) {
    static const char *const wanted[] = {"sse4_2",      "avx",         "avx2",     "fma",      "avx512f",     "avx512bw",
                                         "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "avx512_fp16", "asimd"};
    json_t *list = json_array();
    for (size_t i = 0; flags && i < sizeof wanted / sizeof *wanted; i++) {
        const size_t bytes = strlen(wanted[i]);
        for (const char *at = strstr(flags, wanted[i]); at; at = strstr(at + 1, wanted[i])) {
            const bool whole = (at == flags || at[-1] == ' ') && (at[bytes] == ' ' || at[bytes] == '\0');
            if (!whole) continue;
            (void)json_array_append_new(list, json_string(wanted[i]));
            break;
        }
    }
    return list;
}

/* The least of a limit over the process's control group and those above it (version 2); NAN where there is none. `cpu`: cpu.max, in
 * processors; else memory.max, in bytes. */
static double group_limit(bool cpu) {
    char *groups = read_text("/proc/self/cgroup");
    char *own = groups ? strstr(groups, "0::/") : NULL;
    double least = NAN;
    if (own) {
        own += 3;
        own[strcspn(own, "\n")] = '\0';
        for (;;) {
            char path[PATH_BYTES];
            (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", own, cpu ? "cpu.max" : "memory.max");
            char *text = read_text(path);
            double limit = NAN, period = 1;
            if (text && sscanf(text, "%lf %lf", &limit, &period) >= 1 && !(limit / period >= least)) least = limit / period;
            free(text);
            char *slash = strrchr(own, '/');
            if (!slash) break;
            *slash = '\0';
        }
    }
    free(groups);
    return least;
}

static void describe_processor(json_t *out) {
    char *cpuinfo = read_text("/proc/cpuinfo");
    char *name = line_of(cpuinfo, "model name"), *flags = line_of(cpuinfo, "flags");
    if (!flags) flags = line_of(cpuinfo, "Features");
    set_text(out, "processor", name);
    set_count(out, "processors", sysconf(_SC_NPROCESSORS_ONLN));
    set_count(out, "processors_allowed", (int64_t)ct_pool_default_threads());
    const double quota = group_limit(true);
    if (isfinite(quota)) (void)json_object_set_new(out, "processors_quota", json_real(quota));
    (void)json_object_set_new(out, "instruction_sets", instruction_sets(flags));
    static const struct {
        const char *key;
        int name;
    } caches[] = {
        {"cache_l1_bytes", _SC_LEVEL1_DCACHE_SIZE}, {"cache_l2_bytes", _SC_LEVEL2_CACHE_SIZE}, {"cache_l3_bytes", _SC_LEVEL3_CACHE_SIZE}};
    for (size_t i = 0; i < sizeof caches / sizeof *caches; i++)
        if (sysconf(caches[i].name) > 0) set_count(out, caches[i].key, sysconf(caches[i].name));
    free(flags);
    free(name);
    free(cpuinfo);
}

/* --- memory --- */

static void describe_memory(json_t *out) {
    char *meminfo = read_text("/proc/meminfo");
    static const char *const lines[][2] = {{"MemTotal", "memory_bytes"}, {"MemAvailable", "memory_available_bytes"}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char *text = line_of(meminfo, lines[i][0]);
        if (text) set_count(out, lines[i][1], strtoll(text, NULL, 10) * 1024);
        free(text);
    }
    const double limit = group_limit(false);
    if (isfinite(limit)) set_count(out, "memory_limit_bytes", (int64_t)limit);
    char *huge = read_text("/sys/kernel/mm/transparent_hugepage/enabled");
    const char *chosen = huge ? strchr(huge, '[') : NULL;
    if (chosen) {
        huge[strcspn(huge, "]")] = '\0';
        set_text(out, "huge_pages", chosen + 1);
    } else {
        set_text(out, "huge_pages", "none");
    }
    free(huge);
    free(meminfo);
}

/* --- libraries --- */

/* Those that do our work, as they are loaded now: the version is that of the file which the loader found. */
static int add_library(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size;
    static const char *const wanted[] = {"libcyaml",  "libdnnl",    "libgnutls",     "libgomp",       "libgrpc",
                                         "libisal",   "libjansson", "libmicrohttpd", "libprotobuf-c", "librocksdb",
                                         "libxxhash", "libyaml",    "libyaml-0",     "libz",          "libzstd"};
    const char *slash = strrchr(info->dlpi_name, '/'), *dot = slash ? strstr(slash, ".so") : NULL;
    if (!dot) return 0;
    char name[64];
    (void)snprintf(name, sizeof name, "%.*s", (int)(dot - slash - 1), slash + 1);
    bool found = false;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) found = found || strcmp(name, wanted[i]) == 0;
    char *real = found ? realpath(info->dlpi_name, NULL) : NULL;
    if (!real) return 0;
    const char *version = strstr(real, ".so.");
    (void)json_array_append_new(context, json_pack("{s:s, s:s, s:s}", "name", name, "version", version ? version + 4 : "-", "file", real));
    free(real);
    return 0;
}

/* --- what will be used --- */

static void describe_use(json_t *out) {
    const char *set = ct_tower_instruction_set();
    json_t *use = json_object();
    set_text(use, "device", ct_device_cpu()->ops->kind);
    set_count(use, "threads", (int64_t)ct_pool_default_threads());
    set_text(use, "instruction_set", set);
    /* What `--precision auto` becomes: the sets that multiply bf16 are called bf16, fp16 or AMX. */
    set_text(use, "precision", strstr(set, "f16") || strstr(set, "amx") ? "bf16" : "fp32");
    (void)json_object_set_new(out, "uses", use);
}

ct_code ct_verb_devices(int argc, char **argv, ct_status *status) {
    bool as_json = false;
    const ct_option options[] = {{"json", NULL, CT_OPTION_FLAG, false, &as_json, "print one JSON object", 0, 0, NULL}};
    const ct_command command = {"devices",
                                "Says what hardware and libraries are there, and what a run here would use.",
                                "  clicktower devices\n"
                                "  DNNL_MAX_CPU_ISA=AVX2 clicktower devices --json",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    CT_TRY(ct_command_parse(&command, argc, argv, status));
    json_t *out = json_object();
    set_text(out, "version", CT_VERSION);
    describe_processor(out);
    describe_memory(out);
    set_text(out, "gpu",
             ct_path_exists("/dev/nvidiactl") ? "there is an NVIDIA driver; this build has no CUDA and does not use it"
                                              : "none; this build has no CUDA");
    describe_use(out);
    json_t *libraries = json_array();
    (void)dl_iterate_phdr(add_library, libraries);
    (void)json_array_append_new(libraries, json_pack("{s:s, s:s}", "name", "libc", "version", gnu_get_libc_version()));
    (void)json_object_set_new(out, "libraries", libraries);
    ct_code code = CT_OK;
    if (as_json)
        code = ct_json_output("-", out, status);
    else
        ct_print_object(out);
    json_decref(out);
    return code;
}
