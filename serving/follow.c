/* What models that follow deltas tell, kept for the admin port. */
#include "serving/follow.h"

#include "serving/server_internal.h"

void ct_follow_stats_observe(ct_follow_stats *stats, double oldest_seconds) {
    static const double bounds[] = CT_FOLLOW_BOUNDS;
    size_t bucket = 0;
    while (bucket + 1 < CT_FOLLOW_BUCKETS && oldest_seconds > bounds[bucket]) bucket++;
    stats->freshness[bucket]++;
    stats->freshness_sum += oldest_seconds;
}

void ct_server_set_follow_stats(ct_server *server, const char *model, const ct_follow_stats *stats) {
    (void)pthread_mutex_lock(&server->lock);
    ct_follow_list *entry = server->follow;
    while (entry && strcmp(entry->name, model) != 0) entry = entry->next;
    if (!entry && (entry = calloc(1, sizeof *entry))) {
        (void)snprintf(entry->name, sizeof entry->name, "%s", model);
        entry->next = server->follow;
        server->follow = entry;
    }
    if (entry) entry->stats = *stats;
    (void)pthread_mutex_unlock(&server->lock);
}

bool ct_server_get_follow_stats(ct_server *server, size_t number, ct_follow_list *out_entry) {
    (void)pthread_mutex_lock(&server->lock);
    const ct_follow_list *entry = server->follow;
    for (; entry && number > 0; number--) entry = entry->next;
    if (entry) *out_entry = *entry;
    (void)pthread_mutex_unlock(&server->lock);
    return entry != NULL;
}

void ct_follow_destroy(ct_server *server) {
    while (server->follow) {
        ct_follow_list *next = server->follow->next;
        free(server->follow);
        server->follow = next;
    }
}
