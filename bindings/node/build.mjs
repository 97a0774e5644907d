// Builds the native library with cargo and puts it beside this file as craftsman.node.

import { execFileSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
execFileSync('cargo', ['build', '--release', '--locked'], { cwd: here, stdio: 'inherit' });
const metadata = execFileSync('cargo', ['metadata', '--no-deps', '--format-version', '1'], { cwd: here });
const target = JSON.parse(metadata.toString()).target_directory;
const names = { darwin: 'libcraftsman_node.dylib', win32: 'craftsman_node.dll' };
copyFileSync(join(target, 'release', names[process.platform] ?? 'libcraftsman_node.so'), join(here, 'craftsman.node'));
