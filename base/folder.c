/* Paths and folders. A staged folder stands beside its final name as PATH.partial-PID; where the kernel can exchange two names, the old
 * folder ends under that name for a moment, else under PATH.old-PID. What dead processes left under either name is removed at the next
 * ct_folder_stage. PATH.lock says who writes it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/file_sync.h"
#include "base/text.h"

enum { MAX_DEPTH = 128 };

/* --- paths --- */

bool ct_path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool ct_path_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool ct_path_same_file(const char *a, const char *b) {
    struct stat a_info, b_info;
    return stat(a, &a_info) == 0 && stat(b, &b_info) == 0 && S_ISREG(a_info.st_mode) && a_info.st_dev == b_info.st_dev &&
           a_info.st_ino == b_info.st_ino;
}

char *ct_path_join(const char *folder, const char *name) {
    if (name[0] == '/' || folder[0] == '\0') return strdup(name);
    const size_t length = strlen(folder);
    char *joined = NULL;
    if (asprintf(&joined, "%s%s%s", folder, folder[length - 1] == '/' ? "" : "/", name) < 0) return NULL;
    return joined;
}

/* Without trailing slashes, malloc'd. */
static char *path_trim(const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    return strndup(path, length);
}

char *ct_path_parent(const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--; /* of a/b/ */
    while (length > 0 && path[length - 1] != '/') length--; /* b */
    if (length == 0) return strdup(".");
    while (length > 1 && path[length - 1] == '/') length--; /* the slash, unless it is the root */
    return strndup(path, length);
}

/* --- sync --- */

ct_code ct_sync_fd(int fd, const char *path, ct_status *status) {
    int result;
    do result = fsync(fd);
    while (result != 0 && errno == EINTR);
    if (result != 0 && errno != EINVAL && errno != ENOTSUP) return ct_fail_errno(status, "%s: cannot sync", path);
    return CT_OK;
}

ct_code ct_sync_path(const char *path, ct_status *status) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ct_fail_errno(status, "%s: cannot open to sync", path);
    const ct_code code = ct_sync_fd(fd, path, status);
    (void)close(fd);
    return code;
}

ct_code ct_sync_parent(const char *path, ct_status *status) {
    char *parent = ct_path_parent(path);
    if (!parent) return ct_fail_memory(status, strlen(path), "a folder's name");
    const ct_code code = ct_sync_path(parent, status);
    free(parent);
    return code;
}

bool ct_path_is_staged(const char *path) {
    char part[32];
    (void)snprintf(part, sizeof part, ".partial-%ld/", (long)getpid());
    return strstr(path, part) != NULL;
}

static bool has_other_names(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && info.st_nlink > 1;
}

/* --- create and remove --- */

ct_code ct_folder_create(const char *path, ct_status *status) {
    if (path[0] == '\0') return ct_fail(status, CT_INVALID, "a folder's name is empty");
    char *copy = path_trim(path);
    if (!copy) return ct_fail_memory(status, strlen(path), "a folder's name");
    ct_code code = CT_OK;
    for (char *at = copy + 1;; at++) {
        if (*at != '/' && *at != '\0') continue;
        const char end = *at;
        *at = '\0';
        if (mkdir(copy, 0777) != 0 && !(errno == EEXIST && ct_path_is_folder(copy))) {
            /* An ancestor that cannot be made anew (EROFS, EACCES) may be there already. */
            const int error = errno;
            if (!ct_path_is_folder(copy)) {
                errno = error;
                code = error == EEXIST ? ct_fail(status, CT_EXISTS, "%s: is there and is no folder", copy)
                                       : ct_fail_errno(status, "%s: cannot create the folder", copy);
                break;
            }
        }
        *at = end;
        if (end == '\0') break;
    }
    free(copy);
    return code;
}

/* Removes `path`, whatever it is; symbolic links are removed, not followed. Fine if it is absent. */
static ct_code remove_tree(const char *path, int depth, ct_status *status) {
    struct stat info;
    if (lstat(path, &info) != 0) return errno == ENOENT ? CT_OK : ct_fail_errno(status, "%s: cannot look at it", path);
    if (!S_ISDIR(info.st_mode)) {
        if (unlink(path) != 0 && errno != ENOENT) return ct_fail_errno(status, "%s: cannot remove", path);
        return CT_OK;
    }
    if (depth > MAX_DEPTH) return ct_fail(status, CT_INVALID, "%s: folders deeper than %d", path, MAX_DEPTH);
    DIR *folder = opendir(path);
    if (!folder) return errno == ENOENT ? CT_OK : ct_fail_errno(status, "%s: cannot open the folder", path);
    ct_code code = CT_OK;
    while (code == CT_OK) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry) {
            if (errno) code = ct_fail_errno(status, "%s: cannot read the folder", path);
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *child = ct_path_join(path, entry->d_name);
        if (!child)
            code = ct_fail_memory(status, strlen(path), "a file's name");
        else
            code = remove_tree(child, depth + 1, status);
        free(child);
    }
    (void)closedir(folder);
    CT_TRY(code);
    if (rmdir(path) != 0 && errno != ENOENT) return ct_fail_errno(status, "%s: cannot remove the folder", path);
    return CT_OK;
}

ct_code ct_folder_remove(const char *path, ct_status *status) {
    struct stat info;
    if (lstat(path, &info) == 0 && !S_ISDIR(info.st_mode)) return ct_fail(status, CT_INVALID, "%s: is no folder", path);
    return remove_tree(path, 0, status);
}

/* --- list --- */

typedef struct lister {
    ct_file_list list;
    size_t capacity;
    bool sync_folders;
} lister;

static ct_code list_add(lister *l, const char *relative, ct_status *status) {
    if (l->list.count == l->capacity) {
        const size_t capacity = l->capacity ? 2 * l->capacity : 16;
        char **names = realloc(l->list.names, capacity * sizeof *names);
        if (!names) return ct_fail_memory(status, capacity * sizeof *names, "a list of files");
        l->list.names = names;
        l->capacity = capacity;
    }
    char *name = strdup(relative);
    if (!name) return ct_fail_memory(status, strlen(relative), "a list of files");
    l->list.names[l->list.count++] = name;
    return CT_OK;
}

/* `relative` is "" for the top. */
static ct_code list_below(lister *l, const char *top, const char *relative, int depth, ct_status *status) {
    ct_code code = CT_OK;
    char *path = NULL, *child = NULL, *child_path = NULL;
    DIR *folder = NULL;
    if (depth > MAX_DEPTH) return ct_fail(status, CT_INVALID, "%s/%s: folders deeper than %d", top, relative, MAX_DEPTH);
    path = relative[0] ? ct_path_join(top, relative) : strdup(top);
    if (!path) {
        code = ct_fail_memory(status, strlen(top), "a folder's name");
        goto fail;
    }
    folder = opendir(path);
    if (!folder) {
        code = errno == ENOTDIR ? ct_fail(status, CT_INVALID, "%s: is no folder", path)
                                : ct_fail_errno(status, "%s: cannot open the folder", path);
        goto fail;
    }
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry) {
            if (errno) {
                code = ct_fail_errno(status, "%s: cannot read the folder", path);
                goto fail;
            }
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        free(child);
        free(child_path);
        child = ct_path_join(relative, entry->d_name);
        child_path = ct_path_join(path, entry->d_name);
        struct stat info;
        if (!child || !child_path) {
            code = ct_fail_memory(status, strlen(path), "a file's name");
            goto fail;
        }
        if (lstat(child_path, &info) != 0) {
            code = ct_fail_errno(status, "%s: cannot look at it", child_path);
            goto fail;
        }
        if (S_ISDIR(info.st_mode)) {
            CT_TRY_GOTO(code, list_below(l, top, child, depth + 1, status), fail);
        } else if (S_ISREG(info.st_mode)) {
            CT_TRY_GOTO(code, list_add(l, child, status), fail);
        } else {
            code = ct_fail(status, CT_INVALID, "%s: is neither a file nor a folder", child_path);
            goto fail;
        }
    }
    if (l->sync_folders) CT_TRY_GOTO(code, ct_sync_path(path, status), fail);
fail:
    if (folder) (void)closedir(folder);
    free(child_path);
    free(child);
    free(path);
    return code;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static ct_code list_all(const char *path, bool sync_folders, ct_file_list *out_list, ct_status *status) {
    lister l = {.sync_folders = sync_folders};
    const ct_code code = list_below(&l, path, "", 0, status);
    if (code != CT_OK) {
        ct_file_list_deinit(&l.list);
        return code;
    }
    if (l.list.count) qsort(l.list.names, l.list.count, sizeof *l.list.names, compare_names);
    *out_list = l.list;
    return CT_OK;
}

ct_code ct_folder_list(const char *path, ct_file_list *out_list, ct_status *status) { return list_all(path, false, out_list, status); }

void ct_file_list_deinit(ct_file_list *list) {
    for (size_t i = 0; i < list->count; i++) free(list->names[i]);
    free(list->names);
    *list = (ct_file_list){NULL, 0};
}

/* --- stage and commit --- */

/* Is `text` the number of a process that is dead? `own`: or of this one. */
static bool is_dead(const char *text, bool own) {
    int64_t pid;
    if (!ct_parse_i64(text, strlen(text), &pid) || pid <= 0 || pid > INT32_MAX || text[0] == '+') return false;
    if (pid == (int64_t)getpid()) return own;
    return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

/* Is `name` BASE.partial-N, BASE.old-N or BASE.live-N of a process N that is dead, or of our own number? A folder staged in this process
 * for the same path is replaced: one at a time. */
static bool is_left_over(const char *name, const char *base) {
    const size_t length = strlen(base);
    if (strncmp(name, base, length) != 0) return false;
    name += length;
    if (strncmp(name, ".partial-", 9) == 0)
        name += 9;
    else if (strncmp(name, ".old-", 5) == 0)
        name += 5;
    else if (strncmp(name, ".live-", 6) == 0)
        return is_dead(name + 6, false);
    else
        return false;
    return is_dead(name, true);
}

static ct_code remove_left_overs(const char *path, const char *parent, ct_status *status) {
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    DIR *folder = opendir(parent);
    if (!folder) return ct_fail_errno(status, "%s: cannot open the folder", parent);
    ct_code code = CT_OK;
    const struct dirent *entry;
    while (code == CT_OK && (entry = readdir(folder)) != NULL) {
        if (!is_left_over(entry->d_name, base)) continue;
        char *left = ct_path_join(parent, entry->d_name);
        code = left ? remove_tree(left, 0, status) : ct_fail_memory(status, strlen(path), "a folder's name");
        free(left);
    }
    (void)closedir(folder);
    return code;
}

/* Does the path end in a name, which another folder could take? */
static bool is_name(const char *path) {
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    return base[0] != '\0' && strcmp(base, ".") != 0 && strcmp(base, "..") != 0;
}

ct_code ct_folder_stage(const char *path, char **out_staged, ct_status *status) {
    ct_code code = CT_OK;
    char *staged = NULL, *parent = NULL, *trimmed = path_trim(path);
    if (!trimmed || !(parent = ct_path_parent(trimmed)) || asprintf(&staged, "%s.partial-%ld", trimmed, (long)getpid()) < 0) {
        staged = NULL;
        code = ct_fail_memory(status, strlen(path), "a folder's name");
        goto fail;
    }
    if (!is_name(trimmed)) {
        code = ct_fail(status, CT_INVALID, "\"%s\" cannot be the name of a new folder: give one that can be renamed", path);
        goto fail;
    }
    if (ct_path_exists(trimmed) && !ct_path_is_folder(trimmed)) {
        code = ct_fail(status, CT_EXISTS, "%s: is there and is no folder", trimmed);
        goto fail;
    }
    CT_TRY_GOTO(code, ct_folder_create(parent, status), fail);
    CT_TRY_GOTO(code, remove_left_overs(trimmed, parent, status), fail);
    if (mkdir(staged, 0777) != 0) {
        code = ct_fail_errno(status, "%s: cannot create the folder", staged);
        goto fail;
    }
    *out_staged = staged;
    free(parent);
    free(trimmed);
    return CT_OK;
fail:
    free(staged);
    free(parent);
    free(trimmed);
    return code;
}

/* The old folder goes to `kept`, or away where that is NULL. The new folder stands already: what cannot be removed is tried again by the
 * next stage. */
static ct_code put_away(const char *old, const char *kept, ct_status *status) {
    ct_status ignored = CT_STATUS_INIT;
    if (kept == NULL) {
        (void)remove_tree(old, 0, &ignored);
        return CT_OK;
    }
    CT_TRY(remove_tree(kept, 0, status));
    if (rename(old, kept) != 0) return ct_fail_errno(status, "%s: cannot rename %s to it", kept, old);
    return ct_sync_parent(kept, status);
}

/* Puts `staged` in the place of the folder `path` and the old one away. */
static ct_code replace_folder(const char *staged, const char *path, const char *kept, ct_status *status) {
    if (renameat2(AT_FDCWD, staged, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        CT_TRY(ct_sync_parent(path, status));
        return put_away(staged, kept, status);
    }
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
        return ct_fail_errno(status, "%s: cannot exchange it with %s", path, staged);
    char *old = NULL;
    if (asprintf(&old, "%s.old-%ld", path, (long)getpid()) < 0) return ct_fail_memory(status, strlen(path), "a folder's name");
    ct_code code = remove_tree(old, 0, status);
    if (code == CT_OK && rename(path, old) != 0) code = ct_fail_errno(status, "%s: cannot move the old folder away", path);
    if (code == CT_OK && rename(staged, path) != 0) {
        code = ct_fail_errno(status, "%s: cannot rename %s to it", path, staged);
        (void)rename(old, path);
    }
    if (code == CT_OK) code = ct_sync_parent(path, status);
    if (code == CT_OK) code = put_away(old, kept, status);
    free(old);
    return code;
}

ct_code ct_folder_commit_keeping(const char *staged, const char *path, const char *kept, ct_status *status) {
    ct_code code = CT_OK;
    ct_file_list files = {NULL, 0};
    char *trimmed = path_trim(path);
    if (!trimmed) return ct_fail_memory(status, strlen(path), "a folder's name");
    CT_TRY_GOTO(code, list_all(staged, true, &files, status), fail);
    for (size_t i = 0; i < files.count; i++) {
        char *file = ct_path_join(staged, files.names[i]);
        code = !file ? ct_fail_memory(status, strlen(staged), "a file's name") : has_other_names(file) ? CT_OK : ct_sync_path(file, status);
        free(file);
        if (code != CT_OK) goto fail;
    }
    struct stat info;
    if (lstat(trimmed, &info) != 0) {
        if (rename(staged, trimmed) != 0) {
            code = ct_fail_errno(status, "%s: cannot rename %s to it", trimmed, staged);
            goto fail;
        }
        CT_TRY_GOTO(code, ct_sync_parent(trimmed, status), fail);
    } else if (ct_path_is_folder(trimmed)) {
        CT_TRY_GOTO(code, replace_folder(staged, trimmed, kept, status), fail);
    } else {
        code = ct_fail(status, CT_EXISTS, "%s: is there and is no folder", trimmed);
    }
fail:
    ct_file_list_deinit(&files);
    free(trimmed);
    return code;
}

ct_code ct_folder_commit(const char *staged, const char *path, ct_status *status) {
    return ct_folder_commit_keeping(staged, path, NULL, status);
}

ct_code ct_folder_scratch(const char *path, char **out_scratch, ct_status *status) {
    char *scratch = NULL, *parent = NULL, *trimmed = path_trim(path);
    ct_code code = CT_OK;
    if (!trimmed || !(parent = ct_path_parent(trimmed)) || asprintf(&scratch, "%s.live-%ld", trimmed, (long)getpid()) < 0) {
        scratch = NULL;
        code = ct_fail_memory(status, strlen(path), "a folder's name");
    }
    if (code == CT_OK && !is_name(trimmed))
        code = ct_fail(status, CT_INVALID, "\"%s\" cannot be the name of a new folder: give one that can be renamed", path);
    if (code == CT_OK) code = ct_folder_create(parent, status);
    if (code == CT_OK) code = remove_left_overs(trimmed, parent, status);
    if (code == CT_OK) {
        *out_scratch = scratch;
        scratch = NULL;
    }
    free(scratch);
    free(parent);
    free(trimmed);
    return code;
}

/* --- one writer --- */

struct ct_folder_lock {
    char *path; /* of the file */
    int fd;
};

/* Who holds it: "PID HOST", as its process wrote it. */
static ct_code fail_held(const char *folder, const char *path, int fd, ct_status *status) {
    char text[300] = "", host[256] = "", own[256] = "";
    long pid = 0;
    const ssize_t bytes = pread(fd, text, sizeof text - 1, 0);
    text[bytes > 0 ? bytes : 0] = '\0';
    (void)gethostname(own, sizeof own - 1);
    if (sscanf(text, "%ld %255s", &pid, host) < 1) pid = 0; /* it is just about to write it */
    const bool elsewhere = host[0] != '\0' && strcmp(host, own) != 0;
    return ct_fail(status, CT_EXISTS, "%s: process %ld%s%s writes it (it holds %s): wait until it ends, or name another folder", folder,
                   pid, elsewhere ? " on " : "", elsewhere ? host : "", path);
}

/* Locks the file of that name: *out_gone where it is none any more, because its last holder has just removed it. */
static ct_code lock_file(const char *folder, const char *path, int fd, bool *out_gone, ct_status *status) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat ours, named;
    int result;
    do result = fcntl(fd, F_OFD_SETLK, &lock);
    while (result != 0 && errno == EINTR);
    if (result != 0 && (errno == EAGAIN || errno == EACCES)) return fail_held(folder, path, fd, status);
    if (result != 0) return ct_fail_errno(status, "%s: cannot lock it; a folder that is written must be on a file system with locks", path);
    *out_gone = fstat(fd, &ours) != 0 || stat(path, &named) != 0 || ours.st_ino != named.st_ino || ours.st_dev != named.st_dev;
    if (*out_gone) return CT_OK;
    char text[300], host[256] = "";
    (void)gethostname(host, sizeof host - 1);
    const int bytes = snprintf(text, sizeof text, "%ld %s\n", (long)getpid(), host);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)bytes, 0) != bytes) return ct_fail_errno(status, "%s: cannot write", path);
    return CT_OK;
}

ct_code ct_folder_lock_take(const char *path, ct_folder_lock **out_lock, ct_status *status) {
    char *parent = NULL, *trimmed = path_trim(path);
    ct_code code = CT_OK;
    bool gone = true;
    ct_folder_lock *lock = calloc(1, sizeof *lock);
    if (!lock || !trimmed || !(parent = ct_path_parent(trimmed)) || asprintf(&lock->path, "%s.lock", trimmed) < 0) {
        if (lock) lock->path = NULL;
        code = ct_fail_memory(status, strlen(path), "a folder's name");
        goto done;
    }
    if (!is_name(trimmed)) {
        code = ct_fail(status, CT_INVALID, "\"%s\" cannot be the name of a new folder: give one that can be renamed", path);
        goto done;
    }
    CT_TRY_GOTO(code, ct_folder_create(parent, status), done);
    while (gone) {
        lock->fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (lock->fd < 0) {
            code = ct_fail_errno(status, "%s: cannot open", lock->path);
            goto done;
        }
        code = lock_file(trimmed, lock->path, lock->fd, &gone, status);
        if (code == CT_OK && !gone) break;
        (void)close(lock->fd);
        if (code != CT_OK) goto done;
    }
    *out_lock = lock;
    lock = NULL;
done:
    if (lock) free(lock->path);
    free(lock);
    free(parent);
    free(trimmed);
    return code;
}

void ct_folder_lock_release(ct_folder_lock *lock) {
    if (!lock) return;
    (void)unlink(lock->path); /* while it is held: whoever opened it before sees that it is gone */
    (void)close(lock->fd);
    free(lock->path);
    free(lock);
}
