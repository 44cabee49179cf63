/* Of ESP-IDF's soc_caps.h what builds without ESP-IDF need: as on every chip that the SDK builds for. */
#define SOC_RTC_MEM_SUPPORTED 1
