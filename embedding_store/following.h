/* A store for reading that follows deltas while others read it.
 *
 * Readers have a view: a store of its own, that shares the rows' memory. A delta's rows are first an overlay, a small store that a new view
 * asks before the tables (stage). Once nobody reads the view before, the overlay's rows are put into the tables in place (settle): nobody
 * looks there, as whoever asks for one of these keys finds it in the overlay. Then the overlay is asked no more. So readers never wait, no
 * reader sees half of a delta, the cost is that of the delta, and so is the memory beside the tables.
 *
 *     ct_following_stage -> readers are given the new view -> the last reader of the old one has ended -> ct_following_settle
 *
 * Within a limit on memory there is some room for rows that were not in memory. A delta that finds none is settled into a database beside
 * the folder's (tier.h) but for keys that memory has already; look-ups ask it before the folder's. So following never ends.
 *
 * One thread stages and settles. While it settles, readers find other keys' entries in the index as they are being written: an entry's slot
 * comes last (table.h). What grows is made beside and the old memory given back when its last view has gone. */
#ifndef EMBEDDING_STORE_FOLLOWING_H
#define EMBEDDING_STORE_FOLLOWING_H

#include "embedding_store/delta.h"

typedef struct ct_following ct_following;
/* store: READ; stays the caller's, is no longer read by itself, and must outlive this. room_bytes: of a store within a limit on memory, for
 * rows that deltas change and that were not in memory; beside that limit. scratch: a folder's name, for what finds no room: it is made when
 * it is needed, and removed with the store; NULL = such a delta is refused. */
CT_MUST_CHECK ct_code ct_following_create(ct_store *store, uint64_t room_bytes, const char *scratch, ct_following **out_following,
                                          ct_status *status);
void ct_following_destroy(ct_following *following);         /* when nobody reads; NULL is fine */
ct_store *ct_following_view(const ct_following *following); /* the newest one; for look-ups and ct_store_table_info only */
/* A view with the delta, which was checked. On failure everything is as before. CT_EXHAUSTED: within a limit on memory, and without a
 * folder for scratch, the rows that deltas have changed need more than there is for them. */
CT_MUST_CHECK ct_code ct_following_stage(ct_following *following, const ct_delta *delta, ct_store **out_view, ct_status *status);
/* Instead of settle: the staged view was never read. */
void ct_following_drop(ct_following *following);
/* Nobody reads the view before any more. A failure (memory, disk) leaves the overlay in its place: all is still right, but nothing can be
 * staged. A disk may have room later: call it again until it is settled. */
CT_MUST_CHECK ct_code ct_following_settle(ct_following *following, ct_status *status);

#endif
