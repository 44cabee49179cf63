/*
 * The test server over NSS, Mozilla's library (../server.h): it demands a client certificate and gives tickets. No connection
 * IDs and no CCM; key exchange on P-256 alone, so that a client that begins with another group is asked to try again. Its messages come in
 * records with the shortest header of DTLS 1.3: eight bits of the number and no length.
 *
 * Of a handshake it prints "full" or "resumed", the cipher suite and the version.
 */
#include "../server.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cert.h>
#include <certdb.h>
#include <keyhi.h>
#include <nspr.h>
#include <nss.h>
#include <nssb64.h>
#include <pk11pub.h>
#include <ssl.h>
#include <sslexp.h>
#include <sslproto.h>

#define FILE_BYTES_MAX 65536
#define CERTIFICATES_MAX 8

const char TLS_NAME[] = "nss_server";

static PRFileDesc *model;
static PRDescIdentity layer;
static PRIOMethods methods;

/* ---- files ---- */

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, FILE_BYTES_MAX);

    if (file == NULL || text == NULL || fread(text, 1, FILE_BYTES_MAX - 1, file) == 0) {
        die("a certificate or a key cannot be read");
    }
    fclose(file);
    return text;
}

/* The next part of a PEM text, as DER; moves `text` behind it. NULL: there is none. */
static SECItem *next_part(char **text)
{
    char *begin = strstr(*text, "-----BEGIN");
    char *body = begin == NULL ? NULL : strchr(begin, '\n');
    char *end = body == NULL ? NULL : strstr(body, "-----END");

    if (end == NULL) {
        return NULL;
    }
    *text = end + 1;
    return NSSBase64_DecodeBuffer(NULL, NULL, body, (unsigned) (end - body));
}

/* The certificates of a file; their number. */
static int read_certificates(const char *path, CERTCertificate **certificates)
{
    char *file = read_file(path);
    char *text = file;
    SECItem *der;
    int count = 0;

    while (count < CERTIFICATES_MAX && (der = next_part(&text)) != NULL) {
        certificates[count] = CERT_NewTempCertificate(CERT_GetDefaultCertDB(), der, NULL, PR_FALSE, PR_TRUE);
        if (certificates[count++] == NULL) {
            die("a certificate is none");
        }
        SECITEM_FreeItem(der, PR_TRUE);
    }
    free(file);
    return count;
}

static SECKEYPrivateKey *read_key(const char *path)
{
    char *file = read_file(path);
    char *text = file;
    SECItem *der = next_part(&text);
    SECKEYPrivateKey *key = NULL;
    PK11SlotInfo *slot = PK11_GetInternalSlot();

    if (der == NULL || PK11_ImportDERPrivateKeyInfoAndReturnKey(slot, der, NULL, NULL, PR_FALSE, PR_TRUE, KU_ALL, &key,
                                                                NULL) != SECSuccess) {
        die("the key is none");
    }
    PK11_FreeSlot(slot);
    SECITEM_FreeItem(der, PR_TRUE);
    free(file);
    return key;
}

/* ---- the lowest layer: what NSPR calls a socket ---- */

static association *of(PRFileDesc *fd)
{
    return (association *) fd->secret;
}

static PRInt32 on_receive(PRFileDesc *fd, void *buffer, PRInt32 size, PRIntn flags, PRIntervalTime timeout)
{
    int length = receive_datagram(of(fd), buffer, size);

    (void) flags;
    (void) timeout;
    if (length < 0) {
        PR_SetError(PR_WOULD_BLOCK_ERROR, 0);
    }
    return length;
}

static PRInt32 on_send(PRFileDesc *fd, const void *bytes, PRInt32 length, PRIntn flags, PRIntervalTime timeout)
{
    (void) flags;
    (void) timeout;
    return send_datagram(of(fd), bytes, length);
}

static PRStatus on_peer(PRFileDesc *fd, PRNetAddr *address)
{
    memset(address, 0, sizeof(*address));
    address->inet.family = PR_AF_INET;
    address->inet.port = of(fd)->peer.sin_port;
    address->inet.ip = of(fd)->peer.sin_addr.s_addr;
    return PR_SUCCESS;
}

static PRStatus on_option(PRFileDesc *fd, PRSocketOptionData *data)
{
    (void) fd;
    if (data->option != PR_SockOpt_Nonblocking) {
        PR_SetError(PR_OPERATION_NOT_SUPPORTED_ERROR, 0);
        return PR_FAILURE;
    }
    data->value.non_blocking = PR_TRUE;
    return PR_SUCCESS;
}

/* At the end it sets how long to linger. */
static PRStatus on_set_option(PRFileDesc *fd, const PRSocketOptionData *data)
{
    (void) fd;
    (void) data;
    return PR_SUCCESS;
}

static PRStatus on_close(PRFileDesc *fd)
{
    fd->dtor(fd);
    return PR_SUCCESS;
}

/* ---- what the server asks for ---- */

/* A descriptor of NSS, with all that `like` was told, over the datagrams of the association. */
static PRFileDesc *import(PRFileDesc *like, association *a)
{
    PRFileDesc *lowest = PR_CreateIOLayerStub(layer, &methods);

    if (lowest == NULL) {
        die("no memory for an association");
    }
    lowest->secret = (PRFilePrivate *) a;
    return DTLS_ImportFD(like, lowest);
}

void tls_new(association *a)
{
    PRFileDesc *fd = import(model, a);

    if (fd == NULL || SSL_ResetHandshake(fd, PR_TRUE) != SECSuccess) {
        die("no association");
    }
    a->tls = fd;
}

void tls_free(association *a)
{
    PR_Close(a->tls);
}

int tls_find(const unsigned char *datagram, int length)
{
    (void) datagram;
    (void) length;
    return -1;
}

int tls_error(const association *a)
{
    (void) a;
    return PR_GetError();
}

static tls_result failed(void)
{
    return PR_GetError() == PR_WOULD_BLOCK_ERROR ? TLS_WAITS : TLS_FAILED;
}

static int is_dtls_13(const SSLChannelInfo *info)
{
    return info->protocolVersion >= SSL_LIBRARY_VERSION_TLS_1_3;
}

tls_result tls_handshake(association *a)
{
    SSLChannelInfo channel;
    SSLCipherSuiteInfo suite;

    if (SSL_ForceHandshake(a->tls) != SECSuccess) {
        return failed();
    }
    if (SSL_GetChannelInfo(a->tls, &channel, sizeof(channel)) != SECSuccess ||
        SSL_GetCipherSuiteInfo(channel.cipherSuite, &suite, sizeof(suite)) != SECSuccess) {
        return TLS_FAILED;
    }
    printf("handshake %s %s DTLS 1.%d\n", channel.resumed ? "resumed" : "full", suite.cipherSuiteName,
           is_dtls_13(&channel) ? 3 : 2);
    return TLS_DONE;
}

tls_result tls_read(association *a, void *message, int size, int *length)
{
    *length = PR_Recv(a->tls, message, size, 0, PR_INTERVAL_NO_WAIT);
    if (*length == 0) {
        PR_SetError(PR_END_OF_FILE_ERROR, 0);
    }
    return *length > 0 ? TLS_DONE : failed();
}

void tls_write(association *a, const void *message, int length)
{
    PR_Send(a->tls, message, length, 0, PR_INTERVAL_NO_WAIT);
}

void tls_update(association *a)
{
    if (SSL_KeyUpdate(a->tls, PR_TRUE) == SECSuccess) {
        printf("update sent\n");
    } else {
        printf("update failed %d\n", PR_GetError());
    }
}

/* It acknowledges what comes after the handshake by a timer. */
int tls_timeout(const association *a)
{
    PRIntervalTime left;

    return DTLS_GetHandshakeTimeout(a->tls, &left) == SECSuccess ? (int) PR_IntervalToMilliseconds(left) : -1;
}

static void use_identity(const char *certificate_file, const char *key_file)
{
    CERTCertificate *certificates[CERTIFICATES_MAX];
    SECItem ders[CERTIFICATES_MAX];
    int count = read_certificates(certificate_file, certificates);

    for (int i = 0; i < count; i++) {
        ders[i] = certificates[i]->derCert;
    }
    /* Named, for otherwise NSS completes the chain by the root. */
    const CERTCertificateList chain = {.certs = ders, .len = count};
    const SSLExtraServerCertData extra = {.certChain = &chain};
    if (count == 0 ||
        SSL_ConfigServerCert(model, certificates[0], read_key(key_file), &extra, sizeof(extra)) != SECSuccess) {
        die("the certificate and its key cannot be used");
    }
}

static void trust(const char *file)
{
    CERTCertificate *certificates[CERTIFICATES_MAX];
    CERTCertTrust trusted = {.sslFlags = CERTDB_VALID_CA | CERTDB_TRUSTED_CA | CERTDB_TRUSTED_CLIENT_CA};

    for (int i = read_certificates(file, certificates) - 1; i >= 0; i--) {
        if (CERT_ChangeCertTrust(CERT_GetDefaultCertDB(), certificates[i], &trusted) != SECSuccess) {
            die("a CA cannot be trusted");
        }
    }
}

void tls_configure(char **files, const char *version)
{
    static association nobody;
    static const SSLNamedGroup GROUPS[] = {ssl_grp_ec_secp256r1};
    const SSLVersionRange range = {
        strcmp(version, "1.3") == 0 ? SSL_LIBRARY_VERSION_TLS_1_3 : SSL_LIBRARY_VERSION_TLS_1_2,
        strcmp(version, "1.2") == 0 ? SSL_LIBRARY_VERSION_TLS_1_2 : SSL_LIBRARY_VERSION_TLS_1_3,
    };

    if (NSS_NoDB_Init(NULL) != SECSuccess || NSS_SetDomesticPolicy() != SECSuccess ||
        SSL_ConfigServerSessionIDCache(0, 0, 0, NULL) != SECSuccess) {
        die("NSS does not start");
    }
    layer = PR_GetUniqueIdentity("datagrams");
    methods = *PR_GetDefaultIOMethods();
    methods.recv = on_receive;
    methods.send = on_send;
    methods.getpeername = on_peer;
    methods.getsocketoption = on_option;
    methods.setsocketoption = on_set_option;
    methods.close = on_close;
    model = import(NULL, &nobody);
    if (model == NULL || SSL_VersionRangeSet(model, &range) != SECSuccess ||
        SSL_NamedGroupConfig(model, GROUPS, PR_ARRAY_SIZE(GROUPS)) != SECSuccess ||
        SSL_OptionSet(model, SSL_REQUEST_CERTIFICATE, PR_TRUE) != SECSuccess ||
        SSL_OptionSet(model, SSL_REQUIRE_CERTIFICATE, SSL_REQUIRE_ALWAYS) != SECSuccess ||
        SSL_OptionSet(model, SSL_ENABLE_SESSION_TICKETS, PR_TRUE) != SECSuccess ||
        SSL_OptionSet(model, SSL_ENABLE_DTLS_SHORT_HEADER, PR_TRUE) != SECSuccess) {
        die("an option is not there");
    }
    use_identity(files[0], files[1]);
    trust(files[2]);
}
