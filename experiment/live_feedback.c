/* All feedback in memory, an event in 48 bytes: sorted once by id, so that each counts once, and once by request, so that a request's
 * events stand together. Which of several equal ones is kept does not depend on the order of the files or lines. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "experiment/live_internal.h"
#include "experiment/online_internal.h"

enum { SHOWN, POSITIVE, OTHERS, NAMES_MAX = OTHERS + LIVE_MAX_EVENTS, NO_ID_SEED = 1 };

typedef struct kept_event {
    uint64_t id, request;
    int64_t time_ms, received_ms;
    double value;
    uint32_t candidate;
    uint32_t name; /* SHOWN, POSITIVE, OTHERS + i */
} kept_event;

struct live_feedback {
    int64_t wait_ms, until_ms;
    const char *names[NAMES_MAX];
    size_t name_count;
    kept_event *events; /* (count), by request, candidate, name, time */
    size_t count, capacity;
    live_shown *shown; /* of the request asked for last */
    size_t shown_capacity;
    int64_t asked; /* events of requests that were asked for */
    live_feedback_counts counts;
};

static int order(uint64_t a, uint64_t b) { return (a > b) - (a < b); }

/* What an event says, without when it came. */
static int by_content(const kept_event *a, const kept_event *b) {
    int o = order(a->request, b->request);
    if (o == 0) o = order(a->candidate, b->candidate);
    if (o == 0) o = order(a->name, b->name);
    if (o == 0) o = (a->time_ms > b->time_ms) - (a->time_ms < b->time_ms);
    if (o == 0) o = (a->value > b->value) - (a->value < b->value);
    return o;
}

static int by_id(const void *left, const void *right) {
    const kept_event *a = left, *b = right;
    int o = order(a->id, b->id);
    if (o == 0) o = (a->received_ms > b->received_ms) - (a->received_ms < b->received_ms);
    return o != 0 ? o : by_content(a, b);
}

static int by_request(const void *left, const void *right) {
    const kept_event *a = left, *b = right;
    const int o = by_content(a, b);
    return o != 0 ? o : order(a->id, b->id);
}

static bool is_same(const kept_event *a, const kept_event *b) {
    return a->request == b->request && a->candidate == b->candidate && a->name == b->name;
}

static void drop_duplicates(live_feedback *f) {
    size_t kept = 0;
    online_sort(f->events, f->count, sizeof *f->events, by_id);
    for (size_t i = 0; i < f->count; i++) {
        if (kept > 0 && f->events[kept - 1].id == f->events[i].id) {
            f->counts.duplicates++;
            f->counts.conflicts += !is_same(&f->events[kept - 1], &f->events[i]);
            continue;
        }
        f->events[kept++] = f->events[i];
    }
    f->count = kept;
    online_sort(f->events, f->count, sizeof *f->events, by_request);
}

static ct_code keep(live_feedback *f, const live_event *event, ct_status *status) {
    uint32_t name = 0;
    if (event->received_ms > f->until_ms) f->until_ms = event->received_ms;
    while (name < f->name_count && strcmp(f->names[name], event->event) != 0) name++;
    if (name == f->name_count) {
        f->counts.other_events++;
        return CT_OK;
    }
    if (!online_grow((void **)&f->events, &f->capacity, f->count + 1, sizeof *f->events))
        return ct_fail_memory(status, f->count * sizeof *f->events, "the feedback");
    kept_event *kept = &f->events[f->count++];
    *kept = (kept_event){.request = ct_hash64(event->request_id, strlen(event->request_id), 0),
                         .time_ms = event->time_ms,
                         .received_ms = event->received_ms,
                         .value = event->value,
                         .candidate = event->candidate,
                         .name = name};
    const uint64_t what[] = {kept->request, kept->candidate, ct_hash64(event->event, strlen(event->event), 0)};
    kept->id =
        event->event_id[0] != '\0' ? ct_hash64(event->event_id, strlen(event->event_id), 0) : ct_hash64(what, sizeof what, NO_ID_SEED);
    return CT_OK;
}

static ct_code read_all(live_feedback *f, const live_feedback_options *options, ct_status *status) {
    live_folder *folder = NULL;
    live_line line;
    ct_code code;
    CT_TRY(live_folder_open(options->folder, "feedback", options->reading, &folder, status));
    while ((code = live_folder_next(folder, &line, status)) == CT_OK) {
        live_event event;
        CT_TRY_GOTO(code, live_event_parse(&line, &event, status), done);
        code = keep(f, &event, status);
        live_event_deinit(&event);
        if (code != CT_OK) goto done;
    }
    if (code == CT_END) code = CT_OK;
done:
    f->counts.folder = live_folder_count(folder);
    live_folder_close(folder);
    return code;
}

ct_code live_feedback_read(const live_feedback_options *options, live_feedback **out_feedback, ct_status *status) {
    live_feedback *f = calloc(1, sizeof *f);
    if (f == NULL) return ct_fail_memory(status, sizeof *f, "feedback");
    f->wait_ms = options->wait_ms;
    f->until_ms = INT64_MIN;
    f->names[SHOWN] = "shown";
    f->names[POSITIVE] = options->positive;
    f->name_count = OTHERS + options->event_count;
    for (size_t i = 0; i < options->event_count; i++) f->names[OTHERS + i] = options->events[i];
    const ct_code code = read_all(f, options, status);
    if (code != CT_OK) {
        live_feedback_destroy(f);
        return code;
    }
    if (options->until_ms != INT64_MIN) f->until_ms = options->until_ms;
    drop_duplicates(f);
    *out_feedback = f;
    return CT_OK;
}

void live_feedback_destroy(live_feedback *f) {
    if (f == NULL) return;
    free(f->events);
    free(f->shown);
    free(f);
}

/* --- a request's --- */

/* The first event of a request, or where it would stand. */
static size_t find(const live_feedback *f, uint64_t request) {
    size_t low = 0, high = f->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (f->events[middle].request < request)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The events [first, end) of one candidate; they begin with those that say it was shown. */
static void take_candidate(live_feedback *f, size_t first, size_t end, size_t *count) {
    const kept_event *events = f->events;
    if (events[first].name != SHOWN) {
        f->counts.not_shown += (int64_t)(end - first);
        return;
    }
    live_shown shown = {.candidate = events[first].candidate, .time_ms = events[first].time_ms};
    if (f->wait_ms > 0 && shown.time_ms + f->wait_ms > f->until_ms) {
        f->counts.waiting++;
        return;
    }
    for (size_t i = first + 1; i < end; i++) {
        if (events[i].name == SHOWN) {
            f->counts.shown_again++;
            continue;
        }
        if (f->wait_ms > 0 && events[i].time_ms > shown.time_ms + f->wait_ms) {
            f->counts.too_late++;
            continue;
        }
        f->counts.before_shown += events[i].time_ms < shown.time_ms;
        if (events[i].name == POSITIVE)
            shown.positive = true;
        else
            shown.values[events[i].name - OTHERS] += events[i].value;
    }
    f->shown[(*count)++] = shown;
}

static size_t find_end(const live_feedback *f, size_t first, uint64_t request) {
    size_t end = first;
    while (end < f->count && f->events[end].request == request) end++;
    return end;
}

void live_feedback_pass(live_feedback *f, const live_exposure *exposure) {
    const size_t first = find(f, exposure->request);
    f->asked += (int64_t)(find_end(f, first, exposure->request) - first);
}

ct_code live_feedback_of(live_feedback *f, const live_exposure *exposure, const live_shown **out_shown, size_t *out_count,
                         ct_status *status) {
    size_t count = 0, first = find(f, exposure->request);
    const size_t end = find_end(f, first, exposure->request);
    f->asked += (int64_t)(end - first);
    if (!online_grow((void **)&f->shown, &f->shown_capacity, end - first, sizeof *f->shown))
        return ct_fail_memory(status, (end - first) * sizeof *f->shown, "what was shown");
    while (first < end) {
        size_t next = first;
        while (next < end && f->events[next].candidate == f->events[first].candidate) next++;
        if (f->events[first].candidate < exposure->candidates)
            take_candidate(f, first, next, &count);
        else
            f->counts.no_candidate += (int64_t)(next - first);
        first = next;
    }
    *out_shown = f->shown;
    *out_count = count;
    return CT_OK;
}

live_feedback_counts live_feedback_count(const live_feedback *f) {
    live_feedback_counts counts = f->counts;
    counts.unknown_requests = (int64_t)f->count - f->asked;
    return counts;
}

int64_t live_feedback_until_ms(const live_feedback *f) { return f->until_ms; }

json_t *live_feedback_json(const live_feedback *f) {
    const live_feedback_counts c = live_feedback_count(f);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "files", (json_int_t)c.folder.files, "events",
                     (json_int_t)c.folder.lines, "unfinished_lines", (json_int_t)c.folder.cut, "duplicates", (json_int_t)c.duplicates,
                     "conflicting_ids", (json_int_t)c.conflicts, "other_events", (json_int_t)c.other_events, "unknown_requests",
                     (json_int_t)c.unknown_requests, "no_such_candidate", (json_int_t)c.no_candidate, "shown_again",
                     (json_int_t)c.shown_again, "not_shown", (json_int_t)c.not_shown, "behind_the_window", (json_int_t)c.too_late,
                     "before_shown", (json_int_t)c.before_shown, "still_waiting", (json_int_t)c.waiting);
}
