/*
 * Where the desktop hosts keep PSA's persistent keys: one file for each key in a folder of the device's state, mode
 * 0600. A device has its SDK's own storage instead.
 *
 *     torpor_its_open("state/flash/keys");
 *
 * The keys are in clear: good for development on the desktop, said so in the README.
 */
#ifndef TORPOR_ITS_H
#define TORPOR_ITS_H

/*
 * Names the folder. It is made (mode 0700) at the first write; its parent must exist. Without this call every write
 * fails and every read finds nothing: nothing is ever written to the working directory.
 * Returns 0, or -1 where the path is too long (1,024 bytes and more).
 */
int torpor_its_open(const char *path);

/* Forgets the folder. */
void torpor_its_close(void);

#endif
