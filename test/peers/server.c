/* The DTLS servers of the tests, but for their libraries: see server.h. */
#include "server.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DATAGRAM_BYTES 2048

/* RFC 6347 section 4.1 */
#define HANDSHAKE 22
/* RFC 9147 section 4: the first byte of a record that is protected. */
#define UNIFIED_MASK 0xe0
#define UNIFIED 0x20
#define EPOCH_MASK 3

static association associations[ASSOCIATIONS];
static int udp;
static int plain; /* port of the plain CoAP server behind; 0: messages are sent back */

void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", TLS_NAME, what);
    exit(1);
}

int receive_datagram(association *a, void *buffer, int size)
{
    if (a->datagram == NULL) {
        return -1;
    }
    int length = a->length < size ? a->length : size;
    memcpy(buffer, a->datagram, (size_t) length);
    a->datagram = NULL;
    return length;
}

int send_datagram(association *a, const void *bytes, int length)
{
    a->sent = *(const unsigned char *) bytes;
    sendto(udp, bytes, (size_t) length, 0, (const struct sockaddr *) &a->peer, sizeof(a->peer));
    return length;
}

static void drop(association *a)
{
    tls_free(a);
    if (plain != 0) {
        close(a->upstream);
    }
    memset(a, 0, sizeof(*a));
}

static association *add(const struct sockaddr_in *peer)
{
    for (unsigned i = 0; i < ASSOCIATIONS; i++) {
        association *a = &associations[i];
        if (a->tls != NULL) {
            continue;
        }
        a->number = i;
        a->peer = *peer;
        if (plain != 0) {
            struct sockaddr_in behind = {.sin_family = AF_INET, .sin_port = htons((unsigned short) plain)};
            behind.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            a->upstream = socket(AF_INET, SOCK_DGRAM, 0);
            if (a->upstream < 0 || connect(a->upstream, (struct sockaddr *) &behind, sizeof(behind)) != 0) {
                die("the server behind cannot be reached");
            }
        }
        tls_new(a);
        return a;
    }
    die("too many associations");
    return NULL;
}

/* By the connection ID in the record where there is one, else by the address. */
static association *find(const unsigned char *datagram, int length, const struct sockaddr_in *peer)
{
    int number = tls_find(datagram, length);

    for (unsigned i = 0; i < ASSOCIATIONS; i++) {
        association *a = &associations[i];
        if (a->tls == NULL) {
            continue;
        }
        if (number >= 0 ? i == (unsigned) number
                        : a->peer.sin_port == peer->sin_port && a->peer.sin_addr.s_addr == peer->sin_addr.s_addr) {
            return a;
        }
    }
    return NULL;
}

static void on_message(association *a, const char *message, int length, const struct sockaddr_in *source)
{
    /* The record is authentic: from here on the client is where it came from. */
    int has_moved = a->peer.sin_port != source->sin_port;

    a->peer = *source;
    printf("message %d from port %u%s", length, ntohs(source->sin_port), has_moved ? " moved" : "");
    if ((a->received & UNIFIED_MASK) == UNIFIED) {
        printf(" in epoch %u out %u", a->received & EPOCH_MASK, a->sent & EPOCH_MASK);
    }
    printf("\n");
    if (plain != 0) {
        send(a->upstream, message, (size_t) length, 0);
        return;
    }
    if (length == sizeof(UPDATE) - 1 && memcmp(message, UPDATE, sizeof(UPDATE) - 1) == 0) {
        tls_update(a);
    }
    tls_write(a, message, length);
}

static void serve(association *a, const struct sockaddr_in *source)
{
    char message[DATAGRAM_BYTES];

    if (!a->is_open) {
        switch (tls_handshake(a)) {
        case TLS_DONE:
            a->is_open = 1;
            break;
        case TLS_WAITS:
            break;
        case TLS_FAILED:
            printf("handshake failed %d\n", tls_error(a));
            drop(a);
            return;
        }
    }
    while (a->is_open) {
        int length = 0;
        switch (tls_read(a, message, sizeof(message), &length)) {
        case TLS_DONE:
            on_message(a, message, length, source);
            break;
        case TLS_WAITS:
            return;
        case TLS_FAILED:
            printf("end %d\n", tls_error(a));
            drop(a);
        }
    }
}

/* A message from the server behind, on its way to the client. */
static void answer(association *a)
{
    char message[DATAGRAM_BYTES];
    ssize_t length = recv(a->upstream, message, sizeof(message), 0);

    if (length > 0) {
        tls_write(a, message, (int) length);
    }
}

static void receive(void)
{
    unsigned char datagram[DATAGRAM_BYTES];
    struct sockaddr_in source;
    socklen_t source_length = sizeof(source);
    ssize_t length = recvfrom(udp, datagram, sizeof(datagram), 0, (struct sockaddr *) &source, &source_length);

    if (length <= 0) {
        return;
    }
    association *a = find(datagram, (int) length, &source);
    if (a == NULL && datagram[0] == HANDSHAKE) {
        a = add(&source);
    }
    if (a != NULL) {
        a->datagram = datagram;
        a->length = (int) length;
        a->received = datagram[0];
        serve(a, &source);
    }
}

/* Milliseconds until a library wants to read, or -1. */
static int timeout(void)
{
    int least = -1;

    for (size_t i = 0; i < ASSOCIATIONS; i++) {
        int one = associations[i].tls == NULL ? -1 : tls_timeout(&associations[i]);
        if (one >= 0 && (least < 0 || one < least)) {
            least = one;
        }
    }
    return least;
}

/* Lets the libraries read that want to. */
static void elapse(void)
{
    for (size_t i = 0; i < ASSOCIATIONS; i++) {
        association *a = &associations[i];
        if (a->tls != NULL && tls_timeout(a) == 0) {
            serve(a, &a->peer);
        }
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
    tls_configure(argv + 2, argc > 5 ? argv[5] : "1.2");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short) atoi(argv[1]));
    udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (udp < 0 || bind(udp, (struct sockaddr *) &address, sizeof(address)) != 0) {
        die("the port cannot be bound");
    }
    for (;;) {
        struct pollfd ready[ASSOCIATIONS + 1] = {{.fd = udp, .events = POLLIN}};
        for (size_t i = 0; i < ASSOCIATIONS; i++) {
            ready[i + 1].fd = associations[i].tls != NULL && plain != 0 ? associations[i].upstream : -1;
            ready[i + 1].events = POLLIN;
        }
        if (poll(ready, ASSOCIATIONS + 1, timeout()) < 0) {
            continue;
        }
        elapse();
        for (size_t i = 0; i < ASSOCIATIONS; i++) {
            if (ready[i + 1].revents != 0) {
                answer(&associations[i]);
            }
        }
        if (ready[0].revents != 0) {
            receive();
        }
    }
}
