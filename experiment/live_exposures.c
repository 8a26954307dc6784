/* A folder's requests, one after the other. */
#include <stdlib.h>

#include "experiment/counts.h"
#include "experiment/live_internal.h"

struct live_exposures {
    live_folder *folder;
    ct_counts *seen; /* hashes of scored requests' ids */
    live_exposure exposure;
    int64_t scored, failed, duplicates, derived;
};

ct_code live_exposures_open(const char *folder, const atomic_bool *stop, live_exposures **out_exposures, ct_status *status) {
    ct_code code;
    live_exposures *e = calloc(1, sizeof *e);
    if (e == NULL) return ct_fail_memory(status, sizeof *e, folder);
    CT_TRY_GOTO(code, ct_counts_create(&e->seen, status), fail);
    CT_TRY_GOTO(code, live_folder_open(folder, "exposures", stop, &e->folder, status), fail);
    *out_exposures = e;
    return CT_OK;
fail:
    live_exposures_close(e);
    return code;
}

void live_exposures_close(live_exposures *e) {
    if (e == NULL) return;
    live_exposure_deinit(&e->exposure);
    live_folder_close(e->folder);
    ct_counts_destroy(e->seen);
    free(e);
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
        e->derived += json_array_size(e->exposure.derived) > 0;
        return CT_OK;
    }
}

ct_code live_exposures_at(live_exposures *e, uint32_t file, uint64_t offset, int64_t number, const live_exposure **out_exposure,
                          ct_status *status) {
    live_line line;
    live_exposure_deinit(&e->exposure);
    CT_TRY(live_folder_at(e->folder, file, offset, number, &line, status));
    CT_TRY(live_exposure_parse(&line, &e->exposure, status));
    *out_exposure = &e->exposure;
    return CT_OK;
}

json_t *live_exposures_json(const live_exposures *e) {
    const live_folder_counts c = live_folder_count(e->folder);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "files", (json_int_t)c.files, "lines", (json_int_t)c.lines, "unfinished_lines",
                     (json_int_t)c.cut, "scored", (json_int_t)e->scored, "failed", (json_int_t)e->failed, "repeated_request_ids",
                     (json_int_t)e->duplicates, "with_derived_columns", (json_int_t)e->derived);
}
