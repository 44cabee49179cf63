/*
 * The test server over wolfSSL (../server.h): it demands a client certificate, agrees to connection IDs (RFC 9146, RFC 9147
 * section 9), and keeps sessions by session id, in DTLS 1.3 by tickets.
 *
 * Of a handshake it prints "full" or "resumed", the cipher suite, and the bytes of both connection IDs.
 */
#include "../server.h"

#include <stdio.h>
#include <string.h>

#include <wolfssl/ssl.h>

#define CID_BYTES 8
#define CIPHERS "TLS13-AES128-CCM-8-SHA256:TLS13-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-CCM-8:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-GCM-SHA256"

const char TLS_NAME[] = "wolfssl_server";

static WOLFSSL_CTX *ctx;

/* The connection ID in the client's records; its last byte is the number of the association. */
static const unsigned char CID[CID_BYTES] = {0xc1, 0xc1, 0xc1, 0xc1, 0xc1, 0xc1, 0xc1, 0};

static int on_receive(WOLFSSL *ssl, char *buffer, int size, void *context)
{
    int length = receive_datagram(context, buffer, size);

    (void) ssl;
    return length < 0 ? WOLFSSL_CBIO_ERR_WANT_READ : length;
}

static int on_send(WOLFSSL *ssl, char *buffer, int length, void *context)
{
    (void) ssl;
    return send_datagram(context, buffer, length);
}

/* What a HelloVerifyRequest (RFC 6347 section 4.2.1) carries; this server has no secret to tie it to. */
static int on_cookie(WOLFSSL *ssl, unsigned char *cookie, int size, void *context)
{
    (void) ssl;
    (void) context;
    memset(cookie, 0x5a, (size_t) size);
    return size;
}

void tls_new(association *a)
{
    unsigned char cid[CID_BYTES];
    WOLFSSL *ssl = wolfSSL_new(ctx);

    if (ssl == NULL) {
        die("no memory for an association");
    }
    memcpy(cid, CID, CID_BYTES - 1);
    cid[CID_BYTES - 1] = (unsigned char) a->number;
    wolfSSL_SetIOReadCtx(ssl, a);
    wolfSSL_SetIOWriteCtx(ssl, a);
    wolfSSL_SetCookieCtx(ssl, a);
    wolfSSL_dtls_set_using_nonblock(ssl, 1);
    if (wolfSSL_dtls_cid_use(ssl) != WOLFSSL_SUCCESS || wolfSSL_dtls_cid_set(ssl, cid, CID_BYTES) != WOLFSSL_SUCCESS) {
        die("no connection IDs");
    }
    a->tls = ssl;
}

void tls_free(association *a)
{
    wolfSSL_free(a->tls);
}

int tls_find(const unsigned char *datagram, int length)
{
    const unsigned char *cid = wolfSSL_dtls_cid_parse(datagram, (unsigned) length, CID_BYTES);

    if (cid == NULL) {
        return -1;
    }
    return memcmp(cid, CID, CID_BYTES - 1) == 0 ? cid[CID_BYTES - 1] : ASSOCIATIONS;
}

int tls_error(const association *a)
{
    return wolfSSL_get_error(a->tls, 0);
}

tls_result tls_handshake(association *a)
{
    unsigned received = 0;
    unsigned sent = 0;

    if (wolfSSL_accept(a->tls) != WOLFSSL_SUCCESS) {
        return tls_error(a) == WOLFSSL_ERROR_WANT_READ ? TLS_WAITS : TLS_FAILED;
    }
    if (wolfSSL_dtls_cid_is_enabled(a->tls)) {
        wolfSSL_dtls_cid_get_rx_size(a->tls, &received);
        wolfSSL_dtls_cid_get_tx_size(a->tls, &sent);
    }
    printf("handshake %s %s cid in %u out %u\n", wolfSSL_session_reused(a->tls) ? "resumed" : "full",
           wolfSSL_get_cipher_name(a->tls), received, sent);
    return TLS_DONE;
}

tls_result tls_read(association *a, void *message, int size, int *length)
{
    *length = wolfSSL_read(a->tls, message, size);
    return *length > 0                                                  ? TLS_DONE
           : wolfSSL_get_error(a->tls, *length) == WOLFSSL_ERROR_WANT_READ ? TLS_WAITS
                                                                        : TLS_FAILED;
}

void tls_write(association *a, const void *message, int length)
{
    wolfSSL_write(a->tls, message, length);
}

void tls_update(association *a)
{
    printf("update %s\n", wolfSSL_update_keys(a->tls) == WOLFSSL_SUCCESS ? "sent" : "failed");
}

int tls_timeout(const association *a)
{
    (void) a;
    return -1;
}

void tls_configure(char **files, const char *version)
{
    wolfSSL_Init();
    ctx = wolfSSL_CTX_new(strcmp(version, "1.2") == 0   ? wolfDTLSv1_2_server_method()
                          : strcmp(version, "1.3") == 0 ? wolfDTLSv1_3_server_method()
                                                        : wolfDTLS_server_method());
    if (ctx == NULL) {
        die("no memory");
    }
    if (wolfSSL_CTX_use_certificate_chain_file(ctx, files[0]) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_use_PrivateKey_file(ctx, files[1], WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS ||
        wolfSSL_CTX_load_verify_locations(ctx, files[2], NULL) != WOLFSSL_SUCCESS) {
        die("a certificate or a key cannot be read");
    }
    if (wolfSSL_CTX_set_cipher_list(ctx, CIPHERS) != WOLFSSL_SUCCESS) {
        die("the cipher suites are not there");
    }
    wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    wolfSSL_SetIORecv(ctx, on_receive);
    wolfSSL_SetIOSend(ctx, on_send);
    wolfSSL_CTX_SetGenCookie(ctx, on_cookie);
}
