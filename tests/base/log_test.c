/* Both write to standard error; it is exchanged for a pipe, or for a terminal that the test holds the other end of. */
#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/progress.h"

static int swap_stderr(int fd) {
    const int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    return saved;
}
static void restore_stderr(int saved) {
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    assert_int_equal(close(saved), 0);
}

/* What is there to read now, NUL-terminated. */
static size_t drain(int fd, char *out, size_t room) {
    size_t used = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (used + 1 < room && poll(&ready, 1, 0) == 1 && (ready.revents & POLLIN)) {
        const ssize_t n = read(fd, out + used, room - 1 - used);
        if (n <= 0) break;
        used += (size_t)n;
    }
    out[used] = '\0';
    return used;
}

static bool matches(const char *text, const char *pattern) {
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    const bool match = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return match;
}

#define TIME "time=[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z"

static void log_lines_are_logfmt(void **state) {
    (void)state;
    int ends[2];
    char text[20000], quoted[64], large[6000];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);

    int saved = swap_stderr(ends[1]);
    ct_log_line(CT_LOG_WARNING, "serve.start", "address=%s note=%s", "0.0.0.0:1", ct_log_quote("a \"b\"\n\\", quoted, sizeof quoted));
    restore_stderr(saved);
    (void)drain(ends[0], text, sizeof text);
    if (!matches(text, "^" TIME " level=warning event=serve\\.start address=0\\.0\\.0\\.0:1 note=\"a \\\\\"b\\\\\"\\\\n\\\\\\\\\"\n$"))
        fail_msg("%s", text);

    saved = swap_stderr(ends[1]);
    ct_log_line(CT_LOG_ERROR, "a.b", "k=%s", "two\nlines"); /* not quoted as it should be: still one line */
    ct_log_line(CT_LOG_INFO, "a.c", "k=%s", large);
    ct_log_line(CT_LOG_INFO, "a.d", "%s", "");
    restore_stderr(saved);
    (void)drain(ends[0], text, sizeof text);
    const char *second = strchr(text, '\n') + 1, *third = strchr(second, '\n') + 1;
    assert_true(matches(text, "^" TIME " level=error event=a\\.b k=two lines\n"));
    assert_true(matches(second, "^" TIME " level=info event=a\\.c k=x+\n"));
    assert_true(third - second <= 4096);
    assert_true(matches(third, "^" TIME " level=info event=a\\.d\n$"));
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void quotes_are_cut_whole(void **state) {
    (void)state;
    char out[16];
    assert_string_equal(ct_log_quote("abc", out, 6), "\"abc\"");
    assert_string_equal(ct_log_quote("abc", out, 5), "\"ab\"");
    assert_string_equal(ct_log_quote("a\"", out, 6), "\"a\\\"\"");
    assert_string_equal(ct_log_quote("a\"", out, 5), "\"a\""); /* no half escape */
    assert_string_equal(ct_log_quote("", out, 3), "\"\"");
    assert_string_equal(ct_log_quote("abc", out, 2), "");
    assert_string_equal(ct_log_quote("a\tb", out, sizeof out), "\"a b\"");
}

static void progress_is_quiet_elsewhere(void **state) {
    (void)state;
    int ends[2];
    char text[100];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const int saved = swap_stderr(ends[1]);
    ct_progress progress;
    ct_progress_init(&progress);
    progress.started_ns -= INT64_C(10000000000); /* as if ten seconds had passed */
    ct_progress_update(&progress, "row %d", 1);
    ct_progress_finish(&progress);
    restore_stderr(saved);
    assert_int_equal(drain(ends[0], text, sizeof text), 0);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void progress_draws_on_a_terminal(void **state) {
    (void)state;
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
        print_message("SKIP: no pseudo-terminal here\n");
        if (master >= 0) (void)close(master);
        return;
    }
    const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    if (terminal < 0) {
        print_message("SKIP: the pseudo-terminal cannot be opened here\n");
        (void)close(master);
        return;
    }
    struct termios raw;
    assert_int_equal(tcgetattr(terminal, &raw), 0);
    cfmakeraw(&raw);
    assert_int_equal(tcsetattr(terminal, TCSANOW, &raw), 0);
    const struct winsize window = {.ws_col = 20, .ws_row = 5};
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &window), 0);

    char dumb[200], early[200], first[200], soon[200], cut[200], end[200], again[200];
    ct_progress progress;
    const int saved = swap_stderr(terminal);
    (void)setenv("TERM", "dumb", 1); /* it can't clear a line */
    ct_progress_init(&progress);
    progress.started_ns -= INT64_C(3000000000);
    ct_progress_update(&progress, "row %d", 0);
    (void)drain(master, dumb, sizeof dumb);
    (void)setenv("TERM", "vt100", 1);
    ct_progress_init(&progress);
    ct_progress_update(&progress, "row %d", 1); /* two seconds have not passed */
    (void)drain(master, early, sizeof early);
    progress.started_ns -= INT64_C(3000000000);
    ct_progress_update(&progress, "row %d", 2);
    (void)drain(master, first, sizeof first);
    progress.drawn_ns += INT64_C(3600000000000); /* drawn just now, however slow this machine is */
    ct_progress_update(&progress, "row %d", 3);
    (void)drain(master, soon, sizeof soon);
    progress.drawn_ns -= INT64_C(3601000000000); /* drawn a second ago */
    ct_progress_update(&progress, "%s", "a line that is longer than the terminal");
    (void)drain(master, cut, sizeof cut);
    ct_progress_finish(&progress);
    (void)drain(master, end, sizeof end);
    ct_progress_finish(&progress);
    (void)drain(master, again, sizeof again);
    restore_stderr(saved);

    assert_string_equal(dumb, "");
    assert_string_equal(early, "");
    assert_string_equal(first, "\rrow 2\033[K");
    assert_string_equal(soon, "");
    assert_string_equal(cut, "\ra line that is long\033[K"); /* 19 columns: the last one would wrap */
    assert_string_equal(end, "\r\033[K");
    assert_string_equal(again, "");
    (void)close(terminal);
    (void)close(master);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_lines_are_logfmt),
        cmocka_unit_test(quotes_are_cut_whole),
        cmocka_unit_test(progress_is_quiet_elsewhere),
        cmocka_unit_test(progress_draws_on_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
