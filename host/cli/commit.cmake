# SPDX-License-Identifier: MIT
# host/cli/commit.cmake - writes OUT with GT_VERSION_TEXT: VERSION and the commit that SOURCE is at, if git knows.
set(build "${VERSION}")
find_program(git git)
if(git AND EXISTS "${SOURCE}/.git")
  execute_process(COMMAND ${git} -C ${SOURCE} rev-parse --short=10 HEAD
                  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  execute_process(COMMAND ${git} -C ${SOURCE} status --porcelain --untracked-files=no
                  OUTPUT_VARIABLE changed ERROR_QUIET)
  if(commit AND NOT changed STREQUAL "")
    string(APPEND commit "+")
  endif()
  if(commit)
    string(APPEND build " (${commit})")
  endif()
endif()
set(text "#define GT_VERSION_TEXT \"${build}\"\n")
set(old "")
if(EXISTS "${OUT}")
  file(READ "${OUT}" old)
endif()
if(NOT old STREQUAL text)
  file(WRITE "${OUT}" "${text}")
endif()
