# The last resort of the install script: a plain build of the CPU addon without CMake, CUDA or an external BLAS, asked
# for by `node-gyp rebuild -- -Ddidr_build=1`. Without that variable there is nothing to build, which keeps npm from
# compiling by itself whenever it sees this file.
{
  "variables": {
    "didr_build%": 0,
    "kernels": [
      "<!@(node -p \"const{readdirSync:r}=require('node:fs');['native/ops',...r('native/ops',{withFileTypes:true}).filter(e=>e.isDirectory()).map(e=>'native/ops/'+e.name)].flatMap(d=>r(d).filter(f=>f.endsWith('.cpu.cc')).map(f=>d+'/'+f)).join(' ')\")"
    ]
  },
  "target_defaults": {
    "include_dirs": ["."],
    "cflags_cc": ["-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "OTHER_CFLAGS": ["-O3", "-ffp-contract=off", "-fno-math-errno"]
    },
    "msvs_settings": { "VCCLCompilerTool": { "ExceptionHandling": 1, "AdditionalOptions": ["/std:c++20", "/fp:precise"] } }
  },
  "targets": [
    { "target_name": "nothing", "type": "none" }
  ],
  "conditions": [
    ["didr_build==1", {
      "conditions": [
        ["OS=='linux' and target_arch=='x64'", {
          "targets": [
            {
              "target_name": "didr_kernels_v2", "type": "static_library", "sources": ["<@(kernels)"],
              "defines": ["DIDR_LEVEL=v2"], "cflags_cc": ["-march=x86-64-v2"]
            },
            {
              "target_name": "didr_kernels_v3", "type": "static_library", "sources": ["<@(kernels)"],
              "defines": ["DIDR_LEVEL=v3"], "cflags_cc": ["-march=x86-64-v3"]
            },
            {
              "target_name": "didr_kernels_v4", "type": "static_library", "sources": ["<@(kernels)"],
              "defines": ["DIDR_LEVEL=v4"], "cflags_cc": ["-march=x86-64-v4", "-mprefer-vector-width=512"]
            }
          ]
        }, {
          "targets": [
            { "target_name": "didr_kernels_base", "type": "static_library", "sources": ["<@(kernels)"], "defines": ["DIDR_LEVEL=base"] }
          ]
        }]
      ],
      "targets": [
        {
          "target_name": "didr",
          "sources": [
            "<!@(node -p \"const{readdirSync:r}=require('node:fs');['native/core','native/addon'].flatMap(d=>r(d).filter(f=>f.endsWith('.cc')).map(f=>d+'/'+f)).join(' ')\")",
            "native/ops/op_table.cc"
          ],
          "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
          "defines": [
            "NAPI_VERSION=8",
            "NAPI_CPP_EXCEPTIONS",
            "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS",
          ],
          "conditions": [
            ["OS=='linux' and target_arch=='x64'", {
              "defines": ["DIDR_WITH_v2", "DIDR_WITH_v3", "DIDR_WITH_v4"],
              "dependencies": ["didr_kernels_v2", "didr_kernels_v3", "didr_kernels_v4"]
            }, { "defines": ["DIDR_WITH_base"], "dependencies": ["didr_kernels_base"] }],
            ["OS=='linux'", { "ldflags": ["-Wl,-z,nodelete"] }]
          ]
        }
      ]
    }]
  ]
}
