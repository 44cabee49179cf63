/* mbedTLS built with storage but without its own files asks for this header; the status codes are in PSA's own. */
#ifndef PSA_ERROR_H
#define PSA_ERROR_H
#include <psa/crypto_types.h>
#include <psa/crypto_values.h>
#endif
