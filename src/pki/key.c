/*
 * The host functions of key.ts and bytes.ts in XS, over crypto.h: keys, certificate requests, hashes, random numbers.
 *
 *     native("xs_torpor_key_generate").call(undefined, id, bits)
 *
 * hosts/node/binding.c has the same functions for Node.js. The order in which arguments are read matters: native.h
 * says why.
 */
#include <string.h>

#include "../crc32.h"
#include "../native.h"
#include "crypto.h"

void xs_torpor_crypto_version(xsMachine *the)
{
    xsmcSetString(xsResult, (xsStringValue) torpor_crypto_version());
}

void xs_torpor_random(xsMachine *the)
{
    size_t length;
    uint8_t *out = room_of(the, 0, &length);
    result(the, torpor_random(out, length));
}

void xs_torpor_sha256(xsMachine *the)
{
    size_t length;
    const uint8_t *in = bytes_of(the, 0, &length);
    uint8_t *out = exact_room_of(the, 1, 32);
    result(the, torpor_sha256(in, length, out));
}

/* Of bytes.ts: whether two byte arrays of the same length differ. */
void xs_torpor_differ(xsMachine *the)
{
    size_t length, other_length;
    const uint8_t *one = bytes_of(the, 0, &length), *other = bytes_of(the, 1, &other_length);
    result(the, length != other_length || memcmp(one, other, length) != 0);
}

void xs_torpor_crc32(xsMachine *the)
{
    size_t length;
    uint32_t start = uint32_of(the, 1), end = uint32_of(the, 2), initial = uint32_of(the, 3);
    const uint8_t *in = bytes_of(the, 0, &length);
    if (start > end || end > length) {
        xsTypeError("expected a range of the %d bytes", (int) length);
    }
    result(the, torpor_crc32(in + start, end - start, initial));
}

void xs_torpor_key_generate(xsMachine *the)
{
    uint32_t key, id = uint32_of(the, 0), bits = uint32_of(the, 1);
    int error = torpor_key_generate(id, bits, &key);
    result_or_error(the, error, key);
}

void xs_torpor_key_import(xsMachine *the)
{
    size_t length;
    uint32_t key, id = uint32_of(the, 0);
    const uint8_t *der = bytes_of(the, 1, &length);
    int error = torpor_key_import(id, der, length, &key);
    result_or_error(the, error, key);
}

void xs_torpor_key_check(xsMachine *the)
{
    result(the, torpor_key_check(uint32_of(the, 0)));
}

void xs_torpor_key_public(xsMachine *the)
{
    size_t size, length;
    uint32_t key = uint32_of(the, 0);
    uint8_t *out = room_of(the, 1, &size);
    int error = torpor_key_public(key, out, size, &length);
    result_or_error(the, error, length);
}

void xs_torpor_key_sign(xsMachine *the)
{
    size_t hash_length, size, length;
    uint32_t key = uint32_of(the, 0);
    const uint8_t *hash = bytes_of(the, 1, &hash_length);
    uint8_t *out = room_of(the, 2, &size);
    int error = torpor_key_sign(key, hash, hash_length, out, size, &length);
    result_or_error(the, error, length);
}

void xs_torpor_key_destroy(xsMachine *the)
{
    result(the, torpor_key_destroy(uint32_of(the, 0)));
}

void xs_torpor_csr(xsMachine *the)
{
    size_t subject_length, attributes_length, size, length;
    uint32_t key = uint32_of(the, 0);
    const uint8_t *subject = bytes_of(the, 1, &subject_length);
    const uint8_t *attributes = bytes_of(the, 2, &attributes_length);
    uint8_t *out = room_of(the, 3, &size);
    int error = torpor_csr(key, subject, subject_length, attributes, attributes_length, out, size, &length);
    result_or_error(the, error, length);
}

void xs_torpor_seal_key(xsMachine *the)
{
    uint32_t key;
    int error = torpor_seal_key(&key);
    result_or_error(the, error, key);
}

void xs_torpor_seal(xsMachine *the)
{
    size_t associated_length, length, size;
    uint32_t key = uint32_of(the, 0);
    const uint8_t *associated = bytes_of(the, 1, &associated_length);
    const uint8_t *in = bytes_of(the, 2, &length);
    uint8_t *out = room_of(the, 3, &size);
    result(the, torpor_seal(key, associated, associated_length, in, length, out, size));
}

void xs_torpor_unseal(xsMachine *the)
{
    size_t associated_length, length, size;
    uint32_t key = uint32_of(the, 0);
    const uint8_t *associated = bytes_of(the, 1, &associated_length);
    const uint8_t *in = bytes_of(the, 2, &length);
    uint8_t *out = room_of(the, 3, &size);
    result(the, torpor_unseal(key, associated, associated_length, in, length, out, size));
}

void xs_torpor_chain_verify(xsMachine *the)
{
    size_t chain_length, anchors_length;
    const uint8_t *chain = bytes_of(the, 0, &chain_length);
    const uint8_t *anchors = bytes_of(the, 1, &anchors_length);
    result(the, torpor_chain_verify(chain, chain_length, anchors, anchors_length));
}
