/* What is used here of DLPack, the C interface by which libraries of arrays tell each other of their memory.

   Version 1.3 of https://dmlc.github.io/dlpack; its layout is fixed through all versions 1. */
#ifndef GRADWATCH_DLPACK_H
#define GRADWATCH_DLPACK_H

#include <stdint.h>

enum { DLPACK_CPU = 1 };
enum { DLPACK_FLOAT = 2, DLPACK_BFLOAT = 4, DLPACK_COMPLEX = 5 };

typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} DLDataType;

static inline int is_same_dtype(DLDataType one, DLDataType other)
{
    return one.code == other.code && one.bits == other.bits && one.lanes == other.lanes;
}

typedef struct {
    void *data;
    struct {
        int32_t device_type, device_id;
    } device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} DLTensor;

/* Fills in what a Python object is, which keeps all of it; 0, or an exception is set. */
typedef int (*DLTensorOfObject)(void *object, DLTensor *tensor);

/* What the capsule `__dlpack_c_exchange_api__` of a class points to. */
typedef struct {
    uint32_t major, minor;
    void *older;
    void (*not_used_here[3])(void);
    DLTensorOfObject tensor_of_object;
    void (*nor_this)(void);
} DLExchange;

#endif
