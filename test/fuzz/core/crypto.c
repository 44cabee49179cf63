/*
 * DER and sealed bytes into the readers of crypto.h and into a client's set up: certificates and chains, private keys, what
 * goes into a certificate request, sealed texts.
 *
 *     crypto CORPUS     (a libFuzzer target: crypto -help=1)
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "../../../src/pki/crypto.h"
#include "../../core/certificates.h"

static uint32_t keys[2], seal_key;
static uint8_t sealed[64 + TORPOR_SEAL_BYTES];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const uint8_t PLAIN[64] = "a session";

    (void) argc;
    (void) argv;
    fuzz_open();
    as_client();
    PROMISE(torpor_key_generate(0, 256, &keys[0]) == 0 && torpor_key_generate(0, 384, &keys[1]) == 0);
    (void) torpor_seal_key(&seal_key); /* there is no storage here: it fails, and sealing with it does */
    (void) torpor_seal(seal_key, (const uint8_t *) "slot", 4, PLAIN, sizeof(PLAIN), sealed, sizeof(sealed));
    return 0;
}

/* A genuine certificate, key or Name that the script changes, or bytes of its own. */
static uint8_t *next_der(script *s, size_t *length)
{
    static const struct {
        const uint8_t *der;
        size_t length;
    } GENUINE[] = {
        {CA, sizeof(CA)}, {SERVER, sizeof(SERVER)}, {CLIENT, sizeof(CLIENT)}, {CLIENT_KEY, sizeof(CLIENT_KEY)},
    };
    uint8_t which = next8(s), bytes[FUZZ_DATAGRAM];

    if (which & 128) {
        return next_bytes(s, next16(s), length);
    }
    *length = GENUINE[which % 4].length;
    memcpy(bytes, GENUINE[which % 4].der, *length);
    edit(s, bytes, length, sizeof(bytes));
    return exact_copy(bytes, *length);
}

static void request(script *s)
{
    uint32_t key = keys[next8(s) % 2];
    size_t size = next16(s) % 1500, subject_length, attributes_length, length = 1;
    uint8_t *subject = next_der(s, &subject_length), *attributes = next_der(s, &attributes_length);
    uint8_t *out = malloc(size == 0 ? 1 : size);
    int ret;

    PROMISE(out != NULL);
    ret = torpor_csr(key, subject, subject_length, attributes, attributes_length, out, size, &length);
    PROMISE(ret == 0 ? length > 0 && length <= size && out[0] == 0x30 : ret < 0 && length == 0);
    free(out);
    free(subject);
    free(attributes);
}

/* Whether the first certificate of a chain is a genuine one as it is, or one of the anchors: nobody here can sign anew. */
static int is_known(const uint8_t *chain, size_t length, const uint8_t *anchors, size_t anchors_length)
{
    size_t first = length < 4 ? 0 : 4u + (size_t) (chain[2] << 8 | chain[3]); /* they are of 256 bytes and more */

    return first > 0 && first <= length &&
           ((first == sizeof(CA) && memcmp(chain, CA, first) == 0) ||
            (first == sizeof(SERVER) && memcmp(chain, SERVER, first) == 0) ||
            (first == sizeof(CLIENT) && memcmp(chain, CLIENT, first) == 0) ||
            memmem(anchors, anchors_length, chain, first) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script s = {data, size};
    uint8_t operation = next8(&s);
    size_t length, other_length;
    uint8_t *der, *other;
    uint32_t key = 1;

    as_client();
    switch (operation % 6) {
    case 0:
        request(&s);
        break;
    case 1:
        der = next_der(&s, &length);
        if (torpor_key_import(0, der, length, &key) == 0) {
            PROMISE(key != 0 && torpor_key_check(key) == 0 && torpor_key_destroy(key) == 0);
        } else {
            PROMISE(key == 0);
        }
        free(der);
        break;
    case 2: {
        int ret;
        der = next_der(&s, &length);
        other = next_der(&s, &other_length);
        ret = torpor_chain_verify(der, length, other, other_length);
        PROMISE(ret != 0 || is_known(der, length, other, other_length));
        free(der);
        free(other);
        break;
    }
    case 3: {
        torpor_dtls *d;
        char name[300] = {0};
        PROMISE(torpor_dtls_new(&d) == 0);
        der = next_der(&s, &length);
        other = next_der(&s, &other_length);
        (void) torpor_dtls_trust(d, der, length);
        (void) torpor_dtls_identity(d, keys[0], other, other_length);
        PROMISE(torpor_dtls_state(d) == TORPOR_DTLS_IDLE);
        memcpy(name, other, other_length < sizeof(name) - 1 ? other_length : sizeof(name) - 1);
        (void) torpor_dtls_server_name(d, name);
        (void) torpor_dtls_server_address(d, der, length);
        if (torpor_dtls_start(d, 0, FUZZ_TIME, NULL, 0) == 0) {
            discard_output(d);
        }
        look(d);
        torpor_dtls_free(d);
        free(der);
        free(other);
        break;
    }
    case 4: {
        uint8_t bytes[FUZZ_DATAGRAM], plain[FUZZ_DATAGRAM];
        length = sizeof(sealed);
        memcpy(bytes, sealed, length);
        edit(&s, bytes, &length, sizeof(bytes));
        der = exact_copy(bytes, length);
        other = next_bytes(&s, 64, &other_length);
        (void) torpor_unseal(seal_key, other, other_length, der, length, plain, next16(&s) % sizeof(plain));
        free(der);
        free(other);
        break;
    }
    default: {
        uint8_t signature[112];
        der = next_bytes(&s, 64, &length);
        (void) torpor_key_sign(keys[operation / 6 % 2], der, length, signature, next8(&s) % sizeof(signature),
                               &other_length);
        PROMISE(other_length <= sizeof(signature));
        free(der);
        break;
    }
    }
    return 0;
}
