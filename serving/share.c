/* A request whose rows several threads compute. The thread that decoded it cuts it into blocks and puts it into a list; every thread that
 * is free takes blocks from one counter. So a large request uses all cores, and a busy server loses nothing to it. Rows do not depend on
 * how a request is cut. */
#include "serving/server_internal.h"

static void take_blocks(ct_worker *worker, ct_score_work *work) {
    ct_status status = CT_STATUS_INIT;
    for (;;) {
        const size_t block = atomic_fetch_add(&work->next_block, 1);
        if (block >= work->blocks) return;
        const size_t first = block * work->block_rows, left = work->batch.rows - first;
        if (!atomic_load_explicit(&work->failed, memory_order_relaxed) &&
            ct_score_compute(worker, work, first, left < work->block_rows ? left : work->block_rows, &status) != CT_OK) {
            (void)pthread_mutex_lock(&work->lock);
            if (work->status.code == CT_OK) work->status = status;
            (void)pthread_mutex_unlock(&work->lock);
            atomic_store(&work->failed, true);
        }
        if (atomic_fetch_sub(&work->blocks_left, 1) == 1) ct_score_end(worker->server, work, work->status.code, &work->status);
    }
}

/* A thread that holds the work has no more to do for it; the first one takes it out of the list of those that need help. */
static void let_go(ct_server *server, ct_score_work *work) {
    (void)pthread_mutex_lock(&server->lock);
    for (ct_score_work **at = &server->shared; *at; at = &(*at)->next_shared) {
        if (*at != work) continue;
        *at = work->next_shared;
        break;
    }
    const bool last = --work->holders == 0;
    (void)pthread_mutex_unlock(&server->lock);
    if (!last) return;
    ct_score_work_reset(work, CT_SERVE_KEPT_BYTES);
    (void)pthread_mutex_lock(&server->lock);
    ct_score_work_put(&server->free_large, work);
    (void)pthread_mutex_unlock(&server->lock);
}

/* Blocks are as large as can be, since products of many rows are cheaper for each; a request of less than a block for each thread is cut
 * evenly, at the row counts that the tower has products for. */
static size_t block_rows_for(size_t rows, size_t threads) {
    enum { STEP = 16 };
    const size_t even = ((rows + threads - 1) / threads + STEP - 1) / STEP * STEP;
    return even < CT_SERVE_SHARE_ROWS / 2 ? CT_SERVE_SHARE_ROWS / 2 : even < CT_SERVE_BLOCK_ROWS ? even : CT_SERVE_BLOCK_ROWS;
}

bool ct_share(ct_worker *worker, ct_score_work **owned) {
    ct_server *server = worker->server;
    ct_score_work *work = *owned;
    const size_t rows = work->batch.rows;
    if (server->thread_count <= 2 || rows < CT_SERVE_SHARE_ROWS) return false;
    (void)pthread_mutex_lock(&server->lock);
    const size_t free_threads = server->waiting - (server->waiting && !server->leading);
    (void)pthread_mutex_unlock(&server->lock);
    if (free_threads == 0 && rows <= CT_SERVE_BLOCK_ROWS) return false;
    ct_score_work *fresh = ct_server_other_work(server);
    if (!fresh) return false;
    *owned = fresh;

    work->block_rows = block_rows_for(rows, free_threads + 1);
    work->blocks = (rows + work->block_rows - 1) / work->block_rows;
    work->status = (ct_status)CT_STATUS_INIT;
    atomic_store(&work->failed, false);
    atomic_store(&work->next_block, 0);
    atomic_store(&work->blocks_left, work->blocks + 1); /* ours keeps the call alive while we work */
    work->holders = 1;
    (void)pthread_mutex_lock(&server->lock);
    work->next_shared = server->shared;
    server->shared = work;
    (void)ct_server_wake(server, work->blocks - 1);
    (void)pthread_mutex_unlock(&server->lock);
    take_blocks(worker, work);
    if (atomic_fetch_sub(&work->blocks_left, 1) == 1) ct_score_end(server, work, work->status.code, &work->status);
    let_go(server, work);
    return true;
}

ct_score_work *ct_share_find(ct_server *server) {
    ct_score_work *work = server->shared;
    while (work && atomic_load(&work->next_block) >= work->blocks) work = work->next_shared;
    if (work) work->holders++;
    return work;
}

void ct_share_help(ct_worker *worker, ct_score_work *work) {
    take_blocks(worker, work);
    let_go(worker->server, work);
}
