/**
 * How TypeScript reaches the C core, as the Moddable SDK declares it (xs/includes/xs.d.ts) since version 6.0. Every
 * host provides the two: the SDK at compile time, the simulator and Node.js as globals.
 */

/** A class whose instances hold something of C; `name` is the C destructor. */
declare function Native(name: string): new () => object;

/** The C function `name`. Its arguments and result are checked by the one class that calls it. */
// biome-ignore lint/suspicious/noExplicitAny: as the SDK declares it
declare function native(name: string): (...args: any[]) => any;
