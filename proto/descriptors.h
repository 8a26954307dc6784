/* The descriptors of our .proto files, as protoc writes them: a packed FileDescriptorSet. Made in the build. */
#ifndef PROTO_DESCRIPTORS_H
#define PROTO_DESCRIPTORS_H

#include <stddef.h>

extern const unsigned char ct_proto_descriptors[];
extern const size_t ct_proto_descriptors_bytes;

#endif
