# The sources of wolfSSL, as manifest.json beside this lists them for every build: `wolfssl_sources`, below WOLFSSL_SOURCE.
file(READ ${CMAKE_CURRENT_LIST_DIR}/manifest.json manifest)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/manifest.json)
string(REGEX MATCHALL "[$][(]TORPOR_WOLFSSL[)]/[a-z0-9_/]+[.]c" listed "${manifest}")
set(wolfssl_sources)
foreach(path ${listed})
  string(REPLACE "$(TORPOR_WOLFSSL)" "${WOLFSSL_SOURCE}" path ${path})
  list(APPEND wolfssl_sources ${path})
endforeach()
