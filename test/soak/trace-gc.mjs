// Loaded into the daemon before itself: V8 tells of each collection on standard output.
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--trace-gc');
