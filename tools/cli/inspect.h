/* What a name on the command line stands for, told by its content. */
#ifndef TOOLS_CLI_INSPECT_H
#define TOOLS_CLI_INSPECT_H

typedef enum ct_content_kind {
    CT_CONTENT_MODEL,       /* a folder */
    CT_CONTENT_PUBLICATION, /* a folder with bases or deltas in it */
    CT_CONTENT_BLOCKS,      /* a file that opens like a block file */
    CT_CONTENT_DELTA,       /* a file that opens like a delta */
    CT_CONTENT_OTHER        /* anything else, also nothing */
} ct_content_kind;
ct_content_kind ct_content_kind_of(const char *path);

#endif
