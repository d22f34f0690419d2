# cmake -DPROGRAM=... -DBUG=... -DREPORT=... -P expect_report.cmake
# The mended kernel must run clean, the seeded one must fail with the report.
execute_process(COMMAND ${PROGRAM} ${BUG} mended RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${BUG}: the mended kernel ended with ${result}\n${output}")
endif()
execute_process(COMMAND ${PROGRAM} ${BUG} seeded RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "${BUG}: the bug was not seen\n${output}")
endif()
if(NOT output MATCHES "${REPORT}")
  message(FATAL_ERROR "${BUG}: expected a report of `${REPORT}`, got\n${output}")
endif()
