/* A folder's requests, one after the other. */
#include <stdlib.h>

#include "base/hash.h"
#include "experiment/counts.h"
#include "experiment/live_internal.h"

/* Requests that were asked for by their place are kept parsed, as their candidates are shown at about the same time as those of others. */
enum { KEPT = 1024, KEPT_MAX_BYTES = 16 << 20 /* of lines; parsed, some ten times that */ };

struct live_exposures {
    live_folder *folder;
    ct_counts *seen; /* hashes of scored requests' ids */
    live_exposure exposure;
    live_exposure *kept; /* (KEPT), by the hash of their place; NULL = none yet */
    size_t kept_bytes;
    int64_t scored, failed, duplicates, odds;
};

ct_code live_exposures_open(const char *folder, live_reading reading, live_exposures **out_exposures, ct_status *status) {
    ct_code code;
    live_exposures *e = calloc(1, sizeof *e);
    if (e == NULL) return ct_fail_memory(status, sizeof *e, folder);
    CT_TRY_GOTO(code, ct_counts_create(&e->seen, status), fail);
    CT_TRY_GOTO(code, live_folder_open(folder, "exposures", reading, &e->folder, status), fail);
    *out_exposures = e;
    return CT_OK;
fail:
    live_exposures_close(e);
    return code;
}

void live_exposures_close(live_exposures *e) {
    if (e == NULL) return;
    live_exposure_deinit(&e->exposure);
    for (size_t i = 0; e->kept != NULL && i < KEPT; i++) live_exposure_deinit(&e->kept[i]);
    free(e->kept);
    live_folder_close(e->folder);
    ct_counts_destroy(e->seen);
    free(e);
}

/* Derived columns are target statistics (numbers) and histories (keys). */
static bool has_odds(const live_exposure *exposure) {
    for (size_t i = 0; i < json_array_size(exposure->derived); i++)
        if (json_object_get(json_array_get(exposure->derived, i), "numbers") != NULL) return true;
    return false;
}

ct_code live_exposures_next(live_exposures *e, const live_exposure **out_exposure, ct_status *status) {
    for (;;) {
        live_line line;
        live_exposure_deinit(&e->exposure);
        CT_TRY(live_folder_next(e->folder, &line, status));
        CT_TRY(live_exposure_parse(&line, &e->exposure, status));
        *out_exposure = &e->exposure;
        if (e->exposure.failed) {
            e->failed++;
            return CT_OK;
        }
        if (ct_counts_get(e->seen, e->exposure.request) > 0) {
            e->duplicates++;
            continue;
        }
        CT_TRY(ct_counts_add(e->seen, e->exposure.request, 1, status));
        e->scored++;
        e->odds += has_odds(&e->exposure);
        return CT_OK;
    }
}

static void forget(live_exposures *e, live_exposure *kept) {
    if (kept->json == NULL) return;
    e->kept_bytes -= kept->line.bytes;
    live_exposure_deinit(kept);
}

ct_code live_exposures_at(live_exposures *e, uint32_t file, uint64_t offset, int64_t number, const live_exposure **out_exposure,
                          ct_status *status) {
    const uint64_t place[] = {file, offset};
    live_line line;
    if (e->kept == NULL) e->kept = calloc(KEPT, sizeof *e->kept);
    if (e->kept == NULL) return ct_fail_memory(status, KEPT * sizeof *e->kept, "requests");
    live_exposure *kept = &e->kept[ct_hash64(place, sizeof place, 0) % KEPT];
    *out_exposure = kept;
    if (kept->json != NULL && kept->line.file == file && kept->line.offset == offset) return CT_OK;
    CT_TRY(live_folder_at(e->folder, file, offset, number, &line, status));
    forget(e, kept);
    for (size_t i = 0; e->kept_bytes + line.bytes > KEPT_MAX_BYTES && i < KEPT; i++) forget(e, &e->kept[i]);
    CT_TRY(live_exposure_parse(&line, kept, status));
    e->kept_bytes += line.bytes;
    return CT_OK;
}

json_t *live_exposures_json(const live_exposures *e) {
    const live_folder_counts c = live_folder_count(e->folder);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "files", (json_int_t)c.files, "lines", (json_int_t)c.lines, "unfinished_lines",
                     (json_int_t)c.cut, "scored", (json_int_t)e->scored, "failed", (json_int_t)e->failed, "repeated_request_ids",
                     (json_int_t)e->duplicates, "with_target_statistics", (json_int_t)e->odds);
}
