#include "base/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

enum { FIRST_AFTER_MS = 2000, REDRAW_MS = 100 };

static void put(const char *text, size_t bytes) {
    const ssize_t written = write(STDERR_FILENO, text, bytes); /* progress that cannot be shown is no failure */
    (void)written;
}

void ct_progress_init(ct_progress *progress) {
    progress->started_ns = ct_clock_ns();
    progress->drawn_ns = 0;
    const char *terminal = getenv("TERM");
    progress->terminal = isatty(STDERR_FILENO) == 1 && terminal != NULL && strcmp(terminal, "dumb") != 0; /* one that can clear a line */
    progress->visible = false;
}

void ct_progress_update(ct_progress *progress, const char *format, ...) {
    if (!progress->terminal) return;
    const int64_t now = ct_clock_ns();
    if (now - progress->started_ns < FIRST_AFTER_MS * INT64_C(1000000)) return;
    if (progress->visible && now - progress->drawn_ns < REDRAW_MS * INT64_C(1000000)) return;

    struct winsize window;
    size_t columns = 80;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1) columns = window.ws_col;
    char line[512];
    if (columns > sizeof line - 8) columns = sizeof line - 8;
    line[0] = '\r';
    va_list arguments;
    va_start(arguments, format);
    /* columns - 1 bytes of text: a line that fills the last column would wrap and could not be redrawn. */
    int length = vsnprintf(line + 1, columns, format, arguments);
    va_end(arguments);
    if (length < 0) return;
    size_t used = 1 + ((size_t)length < columns ? (size_t)length : columns - 1);
    for (size_t i = 1; i < used; i++)
        if ((unsigned char)line[i] < 0x20) line[i] = ' ';
    line[used++] = '\033'; /* clear to the end of the line */
    line[used++] = '[';
    line[used++] = 'K';
    put(line, used);
    progress->visible = true;
    progress->drawn_ns = now;
}

void ct_progress_finish(ct_progress *progress) {
    if (progress->visible) put("\r\033[K", 4);
    progress->visible = false;
}
