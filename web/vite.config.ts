import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

const server = process.env.DEEPFLOW_SERVER ?? 'http://127.0.0.1:20416';

export default defineConfig({
  plugins: [svelte()],
  base: './',
  build: {
    outDir: '../deepflow/web/dist',
    emptyOutDir: true,
    // The only browser target that matters is a current one; no polyfills are shipped.
    target: 'es2022',
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { '/v1': server } },
  preview: { proxy: { '/v1': server } },
  test: { include: ['src/**/*.test.ts'] },
});
