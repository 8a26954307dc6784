/* The lines of a folder's files, one after the other. A server may rename X.part to X, and write on, while we read: a name that is gone is
 * tried without its .part, and what is behind the last line's end when we come there is left for the next time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "experiment/live_internal.h"

enum { LINE_MAX_BYTES = 256 << 20, STOP_LINES = 1024 };
#define LINES_ENDING ".jsonl"
#define PART_ENDING  ".jsonl.part"

struct live_folder {
    char **paths; /* (file_count), owned */
    size_t file_count;
    const atomic_bool *stop;
    FILE *file; /* of number `next - 1`; NULL = between two */
    size_t next;
    uint64_t offset;
    int64_t number;
    char *text;
    size_t capacity;
    live_folder_counts counts;
    FILE *again; /* of live_folder_at */
    uint32_t again_file;
};

static bool ends_with(const char *text, const char *ending) {
    const size_t bytes = strlen(text), end = strlen(ending);
    return bytes >= end && strcmp(text + bytes - end, ending) == 0;
}

/* Is this one of the files that are wanted? */
static ct_code judge(const char *folder, const char *name, const char *kind, bool *out_wanted, ct_status *status) {
    const char *base = strrchr(name, '/');
    base = base != NULL ? base + 1 : name;
    const char *other = strcmp(kind, "exposures") == 0 ? "feedback-" : "exposures-";
    *out_wanted = false;
    if (base[0] == '.' || strncmp(base, other, strlen(other)) == 0) return CT_OK;
    *out_wanted = ends_with(base, LINES_ENDING) || ends_with(base, PART_ENDING);
    if (*out_wanted || strncmp(base, kind, strlen(kind)) != 0) return CT_OK;
    return ct_fail(status, CT_UNSUPPORTED, "%s/%s: neither .jsonl nor .jsonl.part: unpack it, or move it out of the folder", folder, name);
}

/* X.part beside X: it was renamed while the folder was listed. */
static bool is_renamed(const ct_file_list *list, size_t i) {
    if (!ends_with(list->names[i], PART_ENDING)) return false;
    const size_t bytes = strlen(list->names[i]) - strlen(".part");
    for (size_t j = i; j-- > 0;) {
        if (strncmp(list->names[j], list->names[i], bytes) != 0) return false; /* sorted: X stands right before X.part */
        if (list->names[j][bytes] == '\0') return true;
    }
    return false;
}

static ct_code find_files(const char *path, const char *kind, live_folder *folder, ct_status *status) {
    ct_file_list list = {0};
    ct_code code;
    CT_TRY(ct_folder_list(path, &list, status));
    folder->paths = calloc(list.count + 1, sizeof *folder->paths);
    if (folder->paths == NULL) {
        code = ct_fail_memory(status, list.count * sizeof *folder->paths, path);
        goto done;
    }
    for (size_t i = 0; i < list.count; i++) {
        bool wanted = false;
        CT_TRY_GOTO(code, judge(path, list.names[i], kind, &wanted, status), done);
        if (!wanted || is_renamed(&list, i)) continue;
        char *name = ct_path_join(path, list.names[i]);
        if (name == NULL) {
            code = ct_fail_memory(status, strlen(path), path);
            goto done;
        }
        folder->paths[folder->file_count++] = name;
    }
    code = CT_OK;
    if (folder->file_count == 0) code = ct_fail(status, CT_NOT_FOUND, "%s: no %s-*.jsonl or .jsonl.part in this folder", path, kind);
done:
    ct_file_list_deinit(&list);
    return code;
}

ct_code live_folder_open(const char *path, const char *kind, const atomic_bool *stop, live_folder **out_folder, ct_status *status) {
    if (!ct_path_is_folder(path)) return ct_fail(status, CT_NOT_FOUND, "%s: no such folder of %s", path, kind);
    live_folder *folder = calloc(1, sizeof *folder);
    if (folder == NULL) return ct_fail_memory(status, sizeof *folder, path);
    folder->stop = stop;
    const ct_code code = find_files(path, kind, folder, status);
    if (code != CT_OK) {
        live_folder_close(folder);
        return code;
    }
    folder->counts.files = (int64_t)folder->file_count;
    *out_folder = folder;
    return CT_OK;
}

void live_folder_close(live_folder *folder) {
    if (folder == NULL) return;
    if (folder->file != NULL) (void)fclose(folder->file);
    if (folder->again != NULL) (void)fclose(folder->again);
    for (size_t i = 0; i < folder->file_count; i++) free(folder->paths[i]);
    free(folder->paths);
    free(folder->text);
    free(folder);
}

live_folder_counts live_folder_count(const live_folder *folder) { return folder->counts; }

static ct_code open_file(const char *path, FILE **out_file, ct_status *status) {
    FILE *file = fopen(path, "re");
    if (file == NULL && errno == ENOENT && ends_with(path, PART_ENDING)) {
        char *whole = strndup(path, strlen(path) - strlen(".part"));
        if (whole == NULL) return ct_fail_memory(status, strlen(path), path);
        file = fopen(whole, "re");
        free(whole);
    }
    if (file == NULL) return ct_fail_errno(status, "%s: cannot open", path);
    (void)posix_fadvise(fileno(file), 0, 0, POSIX_FADV_SEQUENTIAL);
    *out_file = file;
    return CT_OK;
}

/* Takes the newline off. false: there is none. */
static bool cut_end(const live_folder *folder, ssize_t bytes, live_line *line) {
    const bool ended = folder->text[bytes - 1] == '\n';
    line->text = folder->text;
    line->bytes = (size_t)bytes - ended;
    return ended;
}

ct_code live_folder_next(live_folder *folder, live_line *out_line, ct_status *status) {
    for (;;) {
        if (folder->stop != NULL && folder->number % STOP_LINES == 0 && atomic_load(folder->stop))
            return ct_fail(status, CT_CANCELLED, "reading was stopped");
        if (folder->file == NULL) {
            if (folder->next == folder->file_count) return CT_END;
            CT_TRY(open_file(folder->paths[folder->next++], &folder->file, status));
            folder->offset = 0;
            folder->number = 0;
        }
        const char *path = folder->paths[folder->next - 1];
        errno = 0;
        const ssize_t bytes = getline(&folder->text, &folder->capacity, folder->file);
        if (bytes < 0 && ferror(folder->file)) return ct_fail_errno(status, "%s: cannot read", path);
        if (bytes < 0) {
            (void)fclose(folder->file);
            folder->file = NULL;
            continue;
        }
        live_line line = {.path = path, .offset = folder->offset, .number = ++folder->number, .file = (uint32_t)(folder->next - 1)};
        folder->offset += (uint64_t)bytes;
        const bool ended = cut_end(folder, bytes, &line);
        if (!ended && ends_with(path, PART_ENDING)) {
            folder->counts.cut++;
            continue;
        }
        if (line.bytes > LINE_MAX_BYTES) return live_fail(&line, status, "a line of %zu bytes; at most %d", line.bytes, LINE_MAX_BYTES);
        if (line.bytes == 0 || (line.bytes == 1 && line.text[0] == '\r')) continue;
        folder->counts.lines++;
        *out_line = line;
        return CT_OK;
    }
}

ct_code live_folder_at(live_folder *folder, uint32_t file, uint64_t offset, int64_t number, live_line *out_line, ct_status *status) {
    live_line line = {.path = folder->paths[file], .offset = offset, .number = number, .file = file};
    if (folder->again == NULL || folder->again_file != file) {
        FILE *again = NULL;
        CT_TRY(open_file(line.path, &again, status));
        if (folder->again != NULL) (void)fclose(folder->again);
        folder->again = again;
        folder->again_file = file;
    }
    errno = 0;
    if (fseeko(folder->again, (off_t)offset, SEEK_SET) != 0) return ct_fail_errno(status, "%s: cannot seek", line.path);
    const ssize_t bytes = getline(&folder->text, &folder->capacity, folder->again);
    if (bytes < 0) return live_fail(&line, status, "the line is gone: the file was changed while it was read");
    (void)cut_end(folder, bytes, &line);
    *out_line = line;
    return CT_OK;
}
