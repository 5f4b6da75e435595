# The build is described in CMakeLists.txt. This file is here so that node-gyp and prebuildify reach
# it: one target that compiles nothing itself and runs cmake-js (through scripts/build-native.mjs,
# which resolves cmake-js, passes --out build/cmake and is what the install script runs as well).
{
  "targets": [
    {
      "target_name": "altiplano",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake_js",
          "inputs": ["CMakeLists.txt"],
          # Never made, so that the action always runs: CMake knows best what is out of date.
          "outputs": ["<(INTERMEDIATE_DIR)/always"],
          "action": ["node", "scripts/build-native.mjs", "--config", "<(CONFIGURATION_NAME)"],
          "message": "Building the addon with cmake-js"
        }
      ]
    }
  ]
}
