# Cross-compiling for the Raspberry Pi with Debian's gcc-aarch64-linux-gnu; tests then run under qemu-user.
#   cmake -S native -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=aarch64-linux-gnu.cmake [-DAPMPI_CPU=cortex-a53] -DAPMPI_ROOM=OFF
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64;-L;/usr/aarch64-linux-gnu)
