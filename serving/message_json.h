/* Our protobuf messages as JSON, by protobuf's own mapping (https://protobuf.dev/programming-guides/json/): what json_format of the
 * official libraries writes is read, and the other way round. Names in JSON are the .proto's (request_id) or their lowerCamelCase form
 * (requestId); we write the .proto's, and leave out what has its default value. Every `bytes` field of ours is a text (proto/BUILD). */
#ifndef SERVING_MESSAGE_JSON_H
#define SERVING_MESSAGE_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/status.h"

/* The message, in the arena; its texts point into `json`. CT_INVALID names the member, as in `candidates[2].numbers[7]`, and what is
 * wrong. null stands for an absent member. A oneof takes one member. Kinds that
 * no message of ours has in JSON (enums, maps) are CT_UNSUPPORTED. */
CT_MUST_CHECK ct_code ct_message_from_json(ct_arena *arena, const ProtobufCMessageDescriptor *type, const json_t *json,
                                           ProtobufCMessage **out_message, ct_status *status);
/* The text of such a JSON to the message's packed bytes, in the arena. */
CT_MUST_CHECK ct_code ct_message_pack_json(ct_arena *arena, const ProtobufCMessageDescriptor *type, const char *body, size_t bytes,
                                           uint8_t **out_packed, size_t *out_bytes, ct_status *status);
/* The caller's; NULL when out of memory or where a text is not UTF-8. A float's value gives the same float when read back. */
json_t *ct_message_to_json(const ProtobufCMessage *message);

#endif
