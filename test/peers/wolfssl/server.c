/*
 * A DTLS 1.2 server over wolfSSL for the tests: it demands a client certificate, agrees to connection IDs (RFC 9146),
 * keeps sessions by session id, and sends back every message.
 *
 *     wolfssl_server PORT CERTIFICATE KEY CLIENT_CA [VERSION [PLAIN_PORT]]
 *
 * PEM files; on 127.0.0.1. VERSION is 1.2, 1.3 or both (1.2). With PLAIN_PORT, messages go to the plain CoAP server on that
 * port of 127.0.0.1, and its answers to the client.
 *
 * It prints one line for each handshake ("full" or "resumed", bytes of both connection IDs) and for each message (the
 * client's port, and "moved" where it was another one before). No timers: on loopback nothing is lost.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <wolfssl/ssl.h>

#define ASSOCIATIONS 64
#define CID_BYTES 8
#define DATAGRAM_BYTES 2048
#define CIPHERS "TLS13-AES128-CCM-8-SHA256:TLS13-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-CCM-8:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-GCM-SHA256"

/* RFC 6347 section 4.1 */
#define HANDSHAKE 22

typedef struct {
    WOLFSSL *ssl; /* NULL: free */
    struct sockaddr_in peer;
    unsigned char cid[CID_BYTES]; /* in the client's records */
    int is_open;
    int upstream; /* a UDP socket to the server behind, where there is one */
    const unsigned char *datagram; /* waits to be read; NULL: none */
    int length;
} association;

static association associations[ASSOCIATIONS];
static int udp;
static int plain; /* port of the plain CoAP server behind; 0: messages are sent back */

static void die(const char *what)
{
    fprintf(stderr, "wolfssl_server: %s\n", what);
    exit(1);
}

static int on_receive(WOLFSSL *ssl, char *buffer, int size, void *context)
{
    association *a = context;

    (void) ssl;
    if (a->datagram == NULL) {
        return WOLFSSL_CBIO_ERR_WANT_READ;
    }
    int length = a->length < size ? a->length : size;
    memcpy(buffer, a->datagram, (size_t) length);
    a->datagram = NULL;
    return length;
}

static int on_send(WOLFSSL *ssl, char *buffer, int length, void *context)
{
    association *a = context;

    (void) ssl;
    sendto(udp, buffer, (size_t) length, 0, (struct sockaddr *) &a->peer, sizeof(a->peer));
    return length;
}

/* What a HelloVerifyRequest (RFC 6347 section 4.2.1) carries; this server has no secret to tie it to. */
static int on_cookie(WOLFSSL *ssl, unsigned char *cookie, int size, void *context)
{
    (void) ssl;
    (void) context;
    memset(cookie, 0x5a, (size_t) size);
    return size;
}

static void drop(association *a)
{
    wolfSSL_free(a->ssl);
    if (plain != 0) {
        close(a->upstream);
    }
    memset(a, 0, sizeof(*a));
}

static association *add(WOLFSSL_CTX *ctx, const struct sockaddr_in *peer)
{
    for (size_t i = 0; i < ASSOCIATIONS; i++) {
        association *a = &associations[i];
        if (a->ssl != NULL) {
            continue;
        }
        a->ssl = wolfSSL_new(ctx);
        if (a->ssl == NULL) {
            die("no memory for an association");
        }
        a->peer = *peer;
        if (plain != 0) {
            struct sockaddr_in behind = {.sin_family = AF_INET, .sin_port = htons((unsigned short) plain)};
            behind.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            a->upstream = socket(AF_INET, SOCK_DGRAM, 0);
            if (a->upstream < 0 || connect(a->upstream, (struct sockaddr *) &behind, sizeof(behind)) != 0) {
                die("the server behind cannot be reached");
            }
        }
        memset(a->cid, 0xc1, CID_BYTES);
        a->cid[CID_BYTES - 1] = (unsigned char) i;
        wolfSSL_SetIOReadCtx(a->ssl, a);
        wolfSSL_SetIOWriteCtx(a->ssl, a);
        wolfSSL_SetCookieCtx(a->ssl, a);
        wolfSSL_dtls_set_using_nonblock(a->ssl, 1);
        if (wolfSSL_dtls_cid_use(a->ssl) != WOLFSSL_SUCCESS ||
            wolfSSL_dtls_cid_set(a->ssl, a->cid, CID_BYTES) != WOLFSSL_SUCCESS) {
            die("no connection IDs");
        }
        return a;
    }
    die("too many associations");
    return NULL;
}

/* By the connection ID in the record where there is one, else by the address. */
static association *find(const unsigned char *datagram, size_t length, const struct sockaddr_in *peer)
{
    const unsigned char *cid = wolfSSL_dtls_cid_parse(datagram, (unsigned) length, CID_BYTES);

    for (size_t i = 0; i < ASSOCIATIONS; i++) {
        association *a = &associations[i];
        if (a->ssl == NULL) {
            continue;
        }
        if (cid != NULL ? memcmp(a->cid, cid, CID_BYTES) == 0
                        : a->peer.sin_port == peer->sin_port && a->peer.sin_addr.s_addr == peer->sin_addr.s_addr) {
            return a;
        }
    }
    return NULL;
}

static void on_open(association *a)
{
    unsigned received = 0;
    unsigned sent = 0;

    a->is_open = 1;
    if (wolfSSL_dtls_cid_is_enabled(a->ssl)) {
        wolfSSL_dtls_cid_get_rx_size(a->ssl, &received);
        wolfSSL_dtls_cid_get_tx_size(a->ssl, &sent);
    }
    printf("handshake %s %s cid in %u out %u\n", wolfSSL_session_reused(a->ssl) ? "resumed" : "full",
           wolfSSL_get_cipher_name(a->ssl), received, sent);
}

static void serve(association *a, const struct sockaddr_in *source)
{
    char message[DATAGRAM_BYTES];

    if (!a->is_open) {
        if (wolfSSL_accept(a->ssl) == WOLFSSL_SUCCESS) {
            on_open(a);
        } else if (wolfSSL_get_error(a->ssl, 0) != WOLFSSL_ERROR_WANT_READ) {
            printf("handshake failed %d\n", wolfSSL_get_error(a->ssl, 0));
            drop(a);
            return;
        }
    }
    while (a->is_open) {
        int length = wolfSSL_read(a->ssl, message, sizeof(message));
        if (length > 0) {
            /* The record is authentic: from here on the client is where it came from. */
            int has_moved = a->peer.sin_port != source->sin_port;
            a->peer = *source;
            printf("message %d from port %u%s\n", length, ntohs(source->sin_port), has_moved ? " moved" : "");
            if (plain != 0) {
                send(a->upstream, message, (size_t) length, 0);
            } else {
                wolfSSL_write(a->ssl, message, length);
            }
        } else if (wolfSSL_get_error(a->ssl, length) == WOLFSSL_ERROR_WANT_READ) {
            return;
        } else {
            printf("end %d\n", wolfSSL_get_error(a->ssl, length));
            drop(a);
        }
    }
}

static WOLFSSL_CTX *configure(char **files, const char *version)
{
    wolfSSL_Init();
    WOLFSSL_CTX *ctx = wolfSSL_CTX_new(strcmp(version, "1.2") == 0   ? wolfDTLSv1_2_server_method()
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
    return ctx;
}

/* A message from the server behind, on its way to the client. */
static void answer(association *a)
{
    char message[DATAGRAM_BYTES];
    ssize_t length = recv(a->upstream, message, sizeof(message), 0);

    if (length > 0) {
        wolfSSL_write(a->ssl, message, (int) length);
    }
}

static void receive(WOLFSSL_CTX *ctx)
{
    unsigned char datagram[DATAGRAM_BYTES];
    struct sockaddr_in source;
    socklen_t source_length = sizeof(source);
    ssize_t length = recvfrom(udp, datagram, sizeof(datagram), 0, (struct sockaddr *) &source, &source_length);

    if (length <= 0) {
        return;
    }
    association *a = find(datagram, (size_t) length, &source);
    if (a == NULL && datagram[0] == HANDSHAKE) {
        a = add(ctx, &source);
    }
    if (a != NULL) {
        a->datagram = datagram;
        a->length = (int) length;
        serve(a, &source);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    if (argc < 5 || argc > 7) {
        die("expected PORT CERTIFICATE KEY CLIENT_CA [VERSION [PLAIN_PORT]]");
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    plain = argc > 6 ? atoi(argv[6]) : 0;
    WOLFSSL_CTX *ctx = configure(argv + 2, argc > 5 ? argv[5] : "1.2");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short) atoi(argv[1]));
    udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (udp < 0 || bind(udp, (struct sockaddr *) &address, sizeof(address)) != 0) {
        die("the port cannot be bound");
    }
    for (;;) {
        struct pollfd ready[ASSOCIATIONS + 1] = {{.fd = udp, .events = POLLIN}};
        for (size_t i = 0; i < ASSOCIATIONS; i++) {
            ready[i + 1].fd = associations[i].ssl != NULL && plain != 0 ? associations[i].upstream : -1;
            ready[i + 1].events = POLLIN;
        }
        if (poll(ready, ASSOCIATIONS + 1, -1) <= 0) {
            continue;
        }
        for (size_t i = 0; i < ASSOCIATIONS; i++) {
            if (ready[i + 1].revents != 0) {
                answer(&associations[i]);
            }
        }
        if (ready[0].revents != 0) {
            receive(ctx);
        }
    }
}
