#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry for programs that have a main of their own. Calls back with each input; 0 keeps it, -1 forgets it. */
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*callback)(const uint8_t *bytes, size_t count));
