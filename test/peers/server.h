/*
 * What the DTLS servers of the tests have alike (server.c), and what each library gives to it (wolfssl/server.c,
 * nss/server.c):
 *
 *     wolfssl_server PORT CERTIFICATE KEY CLIENT_CA [VERSION [PLAIN_PORT]]
 *
 * PEM files; on 127.0.0.1. VERSION is 1.2, 1.3 or both (1.2). Each message is sent back, after an update of the keys of both
 * sides where it is UPDATE. With PLAIN_PORT, messages go to the plain CoAP server on that port of 127.0.0.1, and its answers to
 * the client.
 *
 * It prints a line for each handshake (the library's) and for each message: the client's port, and "moved" where it was another
 * one before; in DTLS 1.3 the last two bits, which is what a record shows, of the epochs of the message and of what was sent
 * last. On loopback nothing is lost: a library need not have timers here (tls_timeout).
 */
#ifndef TORPOR_TEST_SERVER_H
#define TORPOR_TEST_SERVER_H

#include <netinet/in.h>

#define ASSOCIATIONS 64
#define UPDATE "update"

typedef struct {
    void *tls; /* the library's; NULL: free */
    unsigned number;
    struct sockaddr_in peer;
    int is_open;
    int upstream; /* a UDP socket to the server behind, where there is one */
    const unsigned char *datagram; /* waits to be read; NULL: none */
    int length;
    unsigned char received, sent; /* the first byte of the last datagram */
} association;

void die(const char *what);
/* The datagram that waits, as a socket gives it: its length, or -1 where there is none. */
int receive_datagram(association *a, void *buffer, int size);
int send_datagram(association *a, const void *bytes, int length);

/* ---- what the library gives ---- */

typedef enum { TLS_DONE, TLS_WAITS, TLS_FAILED } tls_result;

extern const char TLS_NAME[];
void tls_configure(char **files, const char *version);
/* Sets a->tls. */
void tls_new(association *a);
void tls_free(association *a);
/* Prints a line that begins with "handshake" where it is done. */
tls_result tls_handshake(association *a);
tls_result tls_read(association *a, void *message, int size, int *length);
void tls_write(association *a, const void *message, int length);
/* Updates the own keys and asks the client to do so too (RFC 9147 section 8). */
void tls_update(association *a);
/* Milliseconds until the library wants to read though nothing has come; -1: never. */
int tls_timeout(const association *a);
/* Why something failed. */
int tls_error(const association *a);
/* The number of the association whose connection ID a datagram bears, or -1. */
int tls_find(const unsigned char *datagram, int length);

#endif
